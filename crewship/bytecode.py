"""Bytecode of installed packages, compiled once for each project.

To compile what a CrewAI project brings takes a third as long as to install it, and a change of its dependencies changes little of
it. So what was compiled is kept beside the project's downloads, by path and content of the source, and is trusted as these are.
"""

from typing import Final

KEEP_DAYS: Final = 30
"""How long what no build of the project has used is kept."""

# $1: the folder whose Python files are compiled; $2: where bytecode is kept. With unchecked hashes: the root is read-only when it
# runs, and files get new times. None of what is compiled is run; what cannot be compiled is left to whoever imports it.
SCRIPT: Final = f"""
import gc, hashlib, importlib.machinery, importlib.util, marshal, os, sys, time
gc.disable()
packages, kept = sys.argv[1], os.path.join(sys.argv[2], importlib.util.MAGIC_NUMBER.hex())
folders = set()
head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")

def bytecode(path, source):
    code = importlib.machinery.SourceFileLoader("module", path).source_to_code(source, path)
    return head + importlib.util.source_hash(source) + marshal.dumps(code)

def place(path):
    with open(path, "rb") as file:
        source = file.read()
    key = hashlib.sha256(os.fsencode(path) + bytes(1) + source).hexdigest()
    store = os.path.join(kept, key[:2], key)
    try:
        with open(store, "rb") as file:
            data = file.read()
        is_kept = data.startswith(head + importlib.util.source_hash(source))
        if is_kept:
            os.utime(store)
    except OSError:
        is_kept = False
    if not is_kept:
        data = bytecode(path, source)
    folder, name = os.path.split(path)
    folder = os.path.join(folder, "__pycache__")
    if folder not in folders:
        os.makedirs(folder, exist_ok=True)
        folders.add(folder)
    target = os.path.join(folder, f"{{name[:-3]}}.{{sys.implementation.cache_tag}}.pyc")
    with open(target, "wb") as file:
        file.write(data)
    if not is_kept:
        scratch = f"{{store}}.{{os.getpid()}}"
        try:
            os.makedirs(os.path.dirname(store), exist_ok=True)
            with open(scratch, "wb") as file:
                file.write(data)
            os.replace(scratch, store)
        except OSError:
            pass  # the next build compiles it again
    return is_kept

def place_all(paths, said):
    count = found = 0
    for path in paths:
        try:
            found += place(path)
            count += 1
        except Exception:
            pass
    os.write(said, b"%d %d\\n" % (count, found))

paths = sorted(
    os.path.join(where, name) for where, _, names in os.walk(packages) for name in names if name.endswith(".py")
)
cores = len(os.sched_getaffinity(0))
reader, writer = os.pipe()
for core in range(cores):
    if os.fork() == 0:
        try:
            place_all(paths[core::cores], writer)
        finally:
            os._exit(0)
os.close(writer)
with os.fdopen(reader) as file:
    sums = [sum(column) for column in zip(*([int(word) for word in line.split()] for line in file))] or [0, 0]
if sums[0]:
    print(f"Bytecode of {{sums[0]}} files, of which {{sums[1]}} were compiled before")
if sums[0] > sums[1]:
    before = time.time() - {KEEP_DAYS} * 86400
    for where, _, names in os.walk(sys.argv[2]):
        for name in names:
            store = os.path.join(where, name)
            if os.stat(store).st_mtime < before:
                os.unlink(store)
"""
