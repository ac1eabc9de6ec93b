rsync -avzh --delete \
--exclude '/data/workspace/XuanYuan/llm-code/cache/*' \
--exclude '*.pyc' \
--exclude '.git/*' \
/data/workspace/XuanYuan root@192.0.2.7:/data/workspace/
bash -c true
python dxm_llm_main.py --train_mode preprocess
