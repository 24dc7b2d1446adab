"""Stand-in for NVIDIA's dcgmi, for the lab."""

import sys

sys.path.insert(0, "/usr/lib/dcgm-stand-in")
from engine import VERSION, Connection, EngineError

words = sys.argv[1:]
if words == ["--version"]:
    print(f"stand-in for dcgmi {VERSION}")
elif words[:1] == ["discovery"] and words[1:] in (["-l"], ["--list"]):
    try:
        gpus = [entity for entity in Connection("localhost:5555").ask()["gpus"] if "GPU_I_ID" not in entity["labels"]]
    except EngineError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(255)
    print(f"{len(gpus)} GPUs found.")
    for gpu in gpus:
        print(f"| {gpu['labels']['gpu']} | Name: {gpu['labels']['modelName']} | {gpu['labels']['UUID']} |")
else:
    sys.exit("stand-in for dcgmi: only discovery --list and --version")
