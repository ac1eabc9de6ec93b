CUDA_VISIBLE_DEVICES=4,5,6,7 python -m torch.distributed.launch --nproc_per_node=4 --master_port=47769 --use_env \
    main.py --model deit_small --batch-size 256 --data-path /data/imagenet
