"""Put into a folder what a GPU machine with torch and transformers still needs for the GPU bench, and no network.

`python -m tests.bench.gpu_wheels FOLDER [--python 3.12] [PACKAGE…]`. It expects peft, accelerate and nvidia-ml-py there
as well, or among the packages that are named instead of the usual ones. The wheels are those of constraints.txt without
their dependencies; bitsandbytes carries a library for each CUDA, ROCm and XPU, of which that of CUDA 13.0 and the CPU's
stay. On the GPU machine: `pip install --no-index --no-deps FOLDER/*.whl`, or unzip them into a folder on PYTHONPATH.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("bitsandbytes", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "tree-sitter")
GRAMMARS = tuple(f"tree-sitter-{name}" for name in ("dart", "go", "javascript", "python", "rust", "typescript"))
PLATFORMS = tuple(f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 28))
KEPT = ("libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so")
MOST_MB = 64


def main() -> None:
    """Download, repack, and say how much it is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("packages", nargs="*", default=PACKAGES + GRAMMARS)
    parser.add_argument("--python", default="3.12", help="version of the GPU machine")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", options.python, *(f"--platform={name}" for name in PLATFORMS)]
    command += ["--constraint", str(ROOT / "constraints.txt"), "--dest", str(options.folder)]
    subprocess.run([*command, *options.packages], check=True)
    for wheel in options.folder.glob("bitsandbytes-*.whl"):
        repack(wheel)
    sizes = {wheel.name: wheel.stat().st_size / 1e6 for wheel in sorted(options.folder.glob("*.whl"))}
    for name, megabytes in sizes.items():
        print(f"{megabytes:6.1f} MB  {name}")
    print(f"{sum(sizes.values()):6.1f} MB together, of at most {MOST_MB}")
    sys.exit(sum(sizes.values()) > MOST_MB)


def repack(wheel: Path) -> None:
    """Leave out the libraries that are not KEPT, from the list of the wheel's files as well."""
    smaller = wheel.with_suffix(".repacked")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as target:
        kept = [name for name in source.namelist() if not is_left_out(name)]
        for name in kept:
            content = source.read(name)
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if not is_left_out(line.partition(",")[0])).encode()
            target.writestr(source.getinfo(name), content, zipfile.ZIP_DEFLATED)
    smaller.replace(wheel)


def is_left_out(name: str) -> bool:
    """Whether a file of bitsandbytes is a library for another device."""
    return bool(re.search(r"/libbitsandbytes_[^/]*\.so$", name)) and Path(name).name not in KEPT


if __name__ == "__main__":
    main()
