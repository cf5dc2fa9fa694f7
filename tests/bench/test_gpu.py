"""The GPU bench runs from end to end on a CPU, says that it did, and keeps what it has measured when time is over."""

import json
import subprocess
import sys
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.bench.contest.variants import VARIANTS
from tests.bench.gpu_wheels import repack

BITSANDBYTES = ["bitsandbytes/__init__.py", *(f"bitsandbytes/libbitsandbytes_{name}.so" for name in ("cpu", "cuda128"))]
ROOT = Path(__file__).parents[2]


def run(*options: str, status: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gpu", "--tiny", "--json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_every_variant_is_measured_and_nothing_is_said_of_a_gpu(tmp_path: Path) -> None:
    report = run("--output", str(tmp_path / "report.json"), "--budget", "5400")
    assert report["dropped"] == {}
    assert list(report["variants"]) == [variant.name for variant in VARIANTS]
    assert "no GPU" in report["measured_on"]
    for name, found in report["variants"].items():
        assert found["tokens_per_s"] > 0, name
        assert len(found["step_seconds"]) == 2
        assert found["first_step_s"] > 0
        assert found["peak_gib"] > 0
        assert (found["mfu"], found["of_ceiling"]) == (None, None)
        assert (found["planned_gib"] is None) == (found["stack"] == "stock")
        assert found["notes"] == []
    assert report["ratio"] > 0
    assert json.loads((tmp_path / "report.json").read_text()) == report


def tell_modules(pipe: Connection) -> None:
    pipe.send({"torch": "torch" in sys.modules})


def test_a_variant_s_process_inherits_no_library_that_opens_cuda(tmp_path: Path) -> None:
    told = """
import sys
from pathlib import Path
from tests.bench import gpu, test_gpu
gpu.prepare(tiny=False)
child = gpu.Contestant.start("probe", test_gpu.tell_modules, log=Path(sys.argv[1]))
child.finish()
print(child.last["torch"])
"""
    done = subprocess.run(
        [sys.executable, "-c", told, str(tmp_path / "log")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_what_the_budget_leaves_no_time_for_is_dropped_and_named() -> None:
    report = run("--budget", "10", status=1)
    assert report["variants"] == {}
    assert report["dropped"].keys() == {"ceiling", *(variant.name for variant in VARIANTS)}
    assert report["ratio"] is None


def test_a_wheel_is_repacked_to_the_libraries_that_count(tmp_path: Path) -> None:
    wheel, record = tmp_path / "bitsandbytes-1-py3-none-any.whl", "bitsandbytes-1.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w") as made:
        for name in BITSANDBYTES:
            made.writestr(name, name)
        made.writestr(record, "".join(f"{name},sha256=x,1\n" for name in BITSANDBYTES))
    repack(wheel)
    with zipfile.ZipFile(wheel) as found:
        assert found.namelist() == [*BITSANDBYTES[:2], record]
        assert found.read(record).decode().splitlines() == [f"{name},sha256=x,1" for name in BITSANDBYTES[:2]]
    assert [path.name for path in tmp_path.iterdir()] == [wheel.name]
