# Compiles the modules named on stdin, one path a line, relative to the working
# folder, to unchecked-hash .pyc files: they need no stat of their source and
# hold no time, so that equal sources give equal files.
import sys

sys.path[:] = [p for p in sys.path if p]

import importlib._bootstrap_external as external
import importlib.util
import os

os.umask(0o022)
for line in sys.stdin:
    name = line.rstrip("\n")
    with open(name, "rb") as f:
        source = f.read()
    try:
        code = compile(source, "/" + name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        continue  # data that only looks like a module
    data = external._code_to_hash_pyc(code, importlib.util.source_hash(source), False)
    cached = importlib.util.cache_from_source(name)
    os.makedirs(os.path.dirname(cached), exist_ok=True)
    with open(cached, "wb") as f:
        f.write(data)
