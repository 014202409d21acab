"""records/older.base: a baseline of the version before a tokenizer's merges were part of its identity.

usage: make_records.py QUIRE, a program built from commit 34a4d8e
"""
import subprocess
import sys

subprocess.run([sys.argv[1], "verify", "examples/demo", "--data", "examples/demo.eval.txt", "--ctx", "16", "--chunks", "1",
                "--save-baseline", "tests/golden/records/older.base", "-q"], check=True)
