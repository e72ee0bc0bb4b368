import os, sys
import shout

print(shout.up(sys.argv[1]), os.environ["PYTHONPATH"], os.getcwd())
