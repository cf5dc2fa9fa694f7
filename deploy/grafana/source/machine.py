"""Machine and GPU: processors, memory, disk, cards, and our own processes."""

from deploy.grafana.source.boards import dashboard, row
from deploy.grafana.source.panels import Json, bad_above, bad_below, graph, stat, table

_DAEMON = '{job="codelupe-daemon"}'
_OURS = '{job=~"codelupe-.+"}'
_RATE = "[$__rate_interval]"


def make() -> Json:
    """Return the dashboard."""
    return dashboard(
        "machine",
        "Machine and GPU",
        "The daemon's machine, once a second. Without an NVIDIA card the second row stays empty.",
        row("Machine", *_machine()),
        row("GPU", *_gpu()),
        row("Our processes", *_processes()),
    )


def _machine() -> list[Json]:
    free = f"min(codelupe_disk_free_bytes{_DAEMON} / codelupe_disk_bytes{_DAEMON})"
    return [
        graph(
            "Processors",
            "Share of all cores' time that was not idle.",
            [(f"codelupe_machine_cpu_busy_ratio{_DAEMON}", "{{instance}}")],
            "percentunit",
            "TrainerStalled",
            least=0,
            most=1,
            width=6,
        ),
        graph(
            "Load",
            "Tasks that run or wait, mean of a minute. More than there are cores: they wait.",
            [(f"codelupe_machine_load_tasks{_DAEMON}", "{{instance}}")],
            "short",
            "TrainerStalled",
            least=0,
            width=6,
        ),
        graph(
            "Memory",
            "What programs have, and what there is.",
            [
                (f"codelupe_machine_memory_bytes{_DAEMON} - codelupe_machine_memory_available_bytes{_DAEMON}", "used"),
                (f"codelupe_machine_memory_bytes{_DAEMON}", "all"),
            ],
            "bytes",
            "RunsFailing",
            least=0,
            width=6,
        ),
        graph(
            "Disk",
            "Space left on the file system of CODELUPE_HOME, and its size.",
            [(f"codelupe_disk_free_bytes{_DAEMON}", "free"), (f"codelupe_disk_bytes{_DAEMON}", "all")],
            "bytes",
            "DiskFilling",
            least=0,
            width=6,
        ),
        stat(
            "Disk left",
            "Share of the disk of CODELUPE_HOME that is free. Alerts at a tenth and a fiftieth.",
            free,
            "percentunit",
            "DiskFull",
            steps=bad_below(0.1, 0.02),
            decimals=0,
            width=12,
        ),
        stat(
            "Clock jumps",
            "Times that the clock was set by more than two seconds, within the time that is shown.",
            f"sum(increase(codelupe_clock_jumps_total{_DAEMON}[$__range]))",
            "none",
            "ClockJumping",
            steps=bad_above(1, 3),
            decimals=0,
            width=12,
        ),
    ]


def _gpu() -> list[Json]:
    legend = "GPU {{gpu}}"
    return [
        table(
            "Cards",
            "What NVML shows to the daemon.",
            f"codelupe_gpu_info{_DAEMON}",
            ("gpu", "name", "driver", "instance"),
            "GpuLost",
            width=6,
            height=8,
        ),
        stat(
            "Cards that answer",
            "Of those that were there when the daemon started.",
            f"sum(codelupe_gpu_up{_DAEMON}) / count(codelupe_gpu_up{_DAEMON})",
            "percentunit",
            "GpuLost",
            steps=bad_below(1, 1),
            nothing="no GPU",
            width=6,
            height=8,
        ),
        graph(
            "Memory of the card",
            "In use by whomever, and what there is.",
            [
                (f"codelupe_gpu_memory_used_bytes{_DAEMON}", f"{legend} used"),
                (f"codelupe_gpu_memory_bytes{_DAEMON}", f"{legend} all"),
            ],
            "bytes",
            "RunsFailing",
            least=0,
            width=6,
        ),
        graph(
            "Utilisation",
            "Share of the last moment in which a kernel ran. Far below 100 % in training: it waits for data.",
            [(f"codelupe_gpu_utilization_ratio{_DAEMON}", legend)],
            "percentunit",
            "TrainerStalled",
            least=0,
            most=1,
            width=6,
        ),
        graph(
            "Temperature",
            "Of the chip, and where the card slows itself down.",
            [
                (f"codelupe_gpu_temperature_celsius{_DAEMON}", legend),
                (f"codelupe_gpu_temperature_limit_celsius{_DAEMON}", f"{legend} limit"),
            ],
            "celsius",
            "GpuHot",
            least=0,
        ),
        graph(
            "Power",
            "What the card draws, and what it may draw.",
            [
                (f"codelupe_gpu_power_watts{_DAEMON}", legend),
                (f"codelupe_gpu_power_limit_watts{_DAEMON}", f"{legend} limit"),
            ],
            "watt",
            "GpuHot",
            least=0,
        ),
        graph(
            "Clocks",
            "Of the multiprocessors and of the memory. A fall under load: heat, or the limit of power.",
            [(f"codelupe_gpu_clock_hertz{_DAEMON}", legend + " {{clock}}")],
            "hertz",
            "GpuHot",
            least=0,
        ),
    ]


def _processes() -> list[Json]:
    legend = "{{job}} {{instance}}"
    return [
        graph(
            "Processor time",
            "Cores that each process keeps busy; the training child is not in it.",
            [(f"rate(process_cpu_seconds_total{_OURS}{_RATE})", legend)],
            "short",
            "DaemonTickStale",
            least=0,
        ),
        graph(
            "Resident memory",
            "Of each process; the training child is not in it.",
            [(f"process_resident_memory_bytes{_OURS}", legend)],
            "bytes",
            "DaemonDown",
            least=0,
        ),
        graph(
            "Open files",
            "Of each process. A number that only grows is a leak of ours.",
            [(f"process_open_fds{_OURS}", legend)],
            "short",
            "LoopFailing",
            least=0,
        ),
    ]
