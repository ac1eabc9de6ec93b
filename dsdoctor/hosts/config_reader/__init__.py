"""What keys a DeepSpeed reads from its config: found in its sources, which are parsed and neither imported nor run.

It is sent to a host as a program of its own (see dsdoctor/hosts/config_keys.py), and the package's own table of keys is
written by it (tests/checks/deepspeed_table.py). It needs nothing but the standard library of Python 3.8.

The functions of runtime/config.py are followed with the config as their argument, and what they call with it or with a
block of it: `config[NAME]`, `.get(NAME)`, `NAME in config` read a key; `Model(**block)` reads a block by the fields of
a pydantic model. A block that goes where it cannot be followed is open: nothing is known of its keys.
"""
