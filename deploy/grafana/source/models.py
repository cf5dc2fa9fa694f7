"""Models: round over round, by language, and what the gate said."""

from deploy.grafana.source.boards import dashboard, row
from deploy.grafana.source.panels import YES_OR_NO, Json, bars, graph, rise, stat

_DAEMON = 'job="codelupe-daemon"'
_ALL = f'{_DAEMON}, language="all"'


def make() -> Json:
    """Return the dashboard."""
    return dashboard(
        "models",
        "Models",
        "Round over round: how well base, incumbent and candidate write held-out code, and what the gate said.",
        row("In service", *_service()),
        row("The last evaluation", *_evaluation()),
        row("Rounds", *_rounds()),
    )


def _service() -> list[Json]:
    return [
        stat(
            "Version",
            "Number of the version in service.",
            f"max(codelupe_version_current{{{_DAEMON}}})",
            "none",
            "NothingPromoted",
            nothing="none yet",
        ),
        stat(
            "In service for",
            "Age of the last promotion or roll-back.",
            f"time() - max(codelupe_version_promoted_timestamp_seconds{{{_DAEMON}}})",
            "s",
            "NothingPromoted",
            nothing="none yet",
        ),
        stat(
            "Files are whole",
            "Whether its files match its manifest, looked at each hour.",
            f"min(codelupe_version_verified{{{_DAEMON}}})",
            "none",
            "VersionUnverified",
            words=YES_OR_NO,
            nothing="none yet",
        ),
        stat(
            "Promoted",
            "Runs promoted within the time that is shown.",
            f'sum(increase(codelupe_runs_total{{{_DAEMON}, outcome="promoted"}}[$__range]))',
            "none",
            "NothingPromoted",
            decimals=0,
        ),
        stat(
            "Not better",
            "Runs held or rejected within the time that is shown.",
            f'sum(increase(codelupe_runs_total{{{_DAEMON}, outcome=~"held|rejected"}}[$__range]))',
            "none",
            "NothingPromoted",
            decimals=0,
        ),
        stat(
            "Rows trained on",
            "Rows that went into a version, at the last audit.",
            f'max(codelupe_store_rows{{{_DAEMON}, state="trained"}})',
            "short",
            "RowsUnaccounted",
            nothing="none yet",
        ),
    ]


def _evaluation() -> list[Json]:
    bits = "codelupe_evaluation_bits_per_byte"
    reference = (
        f'max by (language) ({bits}{{{_DAEMON}, language!="all", model="incumbent", eval_set="test"}} '
        f'or on (language) {bits}{{{_DAEMON}, language!="all", model="base", eval_set="test"}})'
    )
    by_language = f'max by (language) ({bits}{{{_DAEMON}, language!="all", model="candidate", eval_set="test"}})'
    return [
        graph(
            "Bits per byte, round over round",
            "Of held-out code, by model; fewer is better. A step at each evaluation.",
            [(f"max by (model, eval_set) ({bits}{{{_ALL}}})", "{{model}}, {{eval_set}}")],
            "none",
            "NothingPromoted",
            width=12,
        ),
        graph(
            "Gain of the last candidate",
            "The reference's bits per byte minus the candidate's, with its interval. Promoted if all of it is above 0.",
            [(f"max by (bound) (codelupe_gate_gain_bits_per_byte{{{_DAEMON}}})", "{{bound}}")],
            "none",
            "NothingPromoted",
            width=12,
        ),
        bars(
            "Candidate by language",
            "Bits per byte of the last candidate on each language of the test set.",
            by_language,
            "{{language}}",
            "none",
            "NothingPromoted",
            width=12,
        ),
        graph(
            "Incumbent minus candidate, by language",
            "Above 0 the last candidate is better on that language. Against the base before the first version.",
            [
                (
                    f"{reference} - {by_language}",
                    "{{language}}",
                )
            ],
            "none",
            "NothingPromoted",
            width=12,
        ),
    ]


def _rounds() -> list[Json]:
    verdicts = rise(f"codelupe_gate_verdicts_total{{{_DAEMON}}}", "$__range")
    seconds = rise(f"codelupe_run_seconds_sum{{{_DAEMON}}}", "$__range")
    runs = rise(f"codelupe_run_seconds_count{{{_DAEMON}}}", "$__range")
    return [
        bars(
            "Verdicts",
            "What the gate said within the time that is shown, and why.",
            f"sum by (verdict, reason) ({verdicts})",
            "{{verdict}}: {{reason}}",
            "short",
            "NothingPromoted",
        ),
        bars(
            "Why runs failed",
            "Within the time that is shown; `codelupe runs show latest` has the message.",
            f"sum by (reason) (increase(codelupe_runs_failed_total{{{_DAEMON}}}[$__range]))",
            "{{reason}}",
            "short",
            "RunsFailing",
        ),
        bars(
            "Duration of a run, mean",
            "From claim to verdict, by outcome, of those that ended within the time that is shown.",
            f"sum by (outcome) ({seconds}) / (sum by (outcome) ({runs}) > 0)",
            "{{outcome}}",
            "s",
            "TrainerStalled",
        ),
    ]
