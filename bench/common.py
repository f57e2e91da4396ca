"""What the bench scripts share: running lathe, and models of random weights in the shapes of real ones."""
import json
import os
import subprocess
import sys
from pathlib import Path

# Where a configuration folder may keep each shape's config.json.
SHAPES = {
    "Llama-3.2-1B": ["Llama-3.2-1B/config.json", "Llama-3.2-1B.json", "llama3_2_1b.json"],
    "Qwen2.5-0.5B": ["Qwen2.5-0.5B/config.json", "Qwen2.5-0.5B.json", "qwen2.5_0_5b.json", "qwen2_0_5b.json"],
}
BUILTIN = "builtin"  # a shape with its own weights
# Arguments of `lathe quantize`. The head too, as llama-quantize --pure does. The error search is off: the weights
# are random, so it would only cost time.
FORMATS = {
    "bf16": None,
    "int8": ["--scheme", "w8a16"],
    "int4 g32": ["--scheme", "w4a16", "--group-size", "32"],
    "int4 g128": ["--scheme", "w4a16", "--group-size", "128"],
    "w8a8": ["--scheme", "w8a8"],
}
BAD_INPUT = 2  # lathe's exit code


class Failed(Exception):
    """A command's exit code and the last line that it said."""

    def __init__(self, command, code, stderr):
        self.code = code
        lines = stderr.strip().splitlines() or ["(said nothing)"]
        super().__init__(f"{Path(command[0]).name} {' '.join(map(str, command[1:4]))} ...: exit code {code}: {lines[-1]}")


def output(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(command, done.returncode, done.stderr)
    return done.stdout


def run_json(command):
    return json.loads(output(command))


def note(text):
    print(text, file=sys.stderr, flush=True)


def find_config(folder, shape):
    """The config.json of a shape below `folder`, or None."""
    return next((folder / name for name in SHAPES[shape] if (folder / name).is_file()), None)


def config_folder(argument):
    """--configs or $LATHE_CONFIGS; None with a message where neither names a folder."""
    name = argument or os.environ.get("LATHE_CONFIGS", "")
    if name and Path(name).is_dir():
        return Path(name)
    note(f"skipped: expected a folder of model configurations in --configs or LATHE_CONFIGS, found {name or 'none'}")
    return None


def make_model(lathe, config, shape, form, work):
    """The model's directory below `work`, made where it is not there yet. None: the build does not take the scheme."""
    if shape == BUILTIN and FORMATS[form] is None:
        return BUILTIN
    name = (shape + "-" + form).lower().replace(" ", "-")
    target = work / name
    if (target / "config.json").is_file():
        return target
    work.mkdir(parents=True, exist_ok=True)
    note(f"making {target}")
    if FORMATS[form] is None:
        output([lathe, "synth", "--config", config, "--seed", 1, "-o", target])
        return target
    base = make_model(lathe, config, shape, "bf16", work)
    try:
        output([lathe, "quantize", base, *FORMATS[form], "--head", "--scale-search", "absmax", "-o", target])
    except Failed as error:
        if error.code != BAD_INPUT:
            raise
        note(f"skipped {name}: {error}")
        return None
    return target


def bench(lathe, model, prompt, gen, batch, repeats, threads):
    return run_json([lathe, "bench", model, "--prompt-tokens", prompt, "--gen-tokens", gen, "--batch", batch,
                     "--repeats", repeats, "--threads", threads, "--json"])


def table(head, rows):
    """Columns of text: the first two to the left, numbers to the right."""
    cells = [head] + [[str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip())
