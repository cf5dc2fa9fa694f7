from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitoring import database, families, metrics, record, reference

DOCS = Path(__file__).parents[2] / "docs"


def exported() -> dict[str, float]:
    """Return what the registry exports now: 'name{label="value"}' -> value."""
    families = text_string_to_metric_families(generate_latest(metrics.REGISTRY).decode())
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def _leave_no_run_open():
    yield
    record.forget_child()
    record.record_run_state(None)


@pytest.mark.parametrize("metric", metrics.CATALOGUE, ids=lambda metric: metric.name)
def test_every_metric_has_our_prefix_a_base_unit_a_help_text_and_bounded_labels(metric):
    assert metric.name.startswith("codelupe_")
    assert not metric.name.endswith(("_ms", "_minutes", "_hours", "_kb", "_mb", "_percent"))
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert len(metric.help) > 10
    assert not {"repository", "repo", "path", "file", "owner", "source", "url"} & set(metric.labels)


def test_the_documentation_lists_exactly_these_metrics():
    message = "run: python -m monitoring.reference > docs/metrics.md"
    assert (DOCS / "metrics.md").read_text() == reference.render(), message


def test_what_the_database_counted_is_added_up_and_a_reset_of_its_statistics_takes_nothing_back():
    counted = dict.fromkeys(("xact_commit", "xact_rollback", "blks_hit", "blks_read", "deadlocks"), 10)
    before = exported()["codelupe_database_transactions_total[commit]"]
    database.record_database_activity(counted, counted | {"xact_commit": 15})
    database.record_database_activity(counted, counted | {"xact_commit": 2})
    assert exported()["codelupe_database_transactions_total[commit]"] == before + 5 + 2


def test_the_process_itself_is_measured():
    assert exported()["process_resident_memory_bytes"] > 0


def test_a_gauge_is_absent_until_it_is_known_and_again_when_it_is_forgotten():
    registry = CollectorRegistry()
    gauge = families.LateGauge("depth_meters", "Depth", registry=registry)
    assert registry.get_sample_value("depth_meters") is None
    gauge.set(0)
    assert registry.get_sample_value("depth_meters") == 0
    gauge.set(metrics.UNKNOWN)
    assert registry.get_sample_value("depth_meters") is None


def test_counters_with_known_labels_start_at_zero_so_that_no_first_event_is_missed():
    assert {f"codelupe_runs_total[{outcome}]" for outcome in metrics.RUN_OUTCOMES} <= set(exported())
    assert {f"codelupe_loop_errors_total[{loop}]" for loop in metrics.LOOPS} <= set(exported())


def test_the_child_s_events_become_live_figures():
    record.record_event({"event": "phase", "phase": "load"})
    record.record_event({"event": "attention", "attention": "sdpa"})
    record.record_event({"event": "phase", "phase": "train"})
    step = {"event": "step", "step": 7, "total": 40, "epoch": 0.2, "loss": 2.5, "lr": 4e-3, "grad_norm": 1.5}
    record.record_event({**step, "tokens": 4096, "tokens_per_s": 900.0, "eta_s": 33.0})
    record.record_event({"event": "eval", "step": 7, "loss": 2.6, "bits_per_byte": 2.2, "best": True})
    seen = exported()
    assert {name: seen[f"codelupe_train_{name}"] for name in ("step", "steps", "epoch", "loss", "eval_loss")} == {
        "step": 7,
        "steps": 40,
        "epoch": 0.2,
        "loss": 2.5,
        "eval_loss": 2.6,
    }
    assert seen["codelupe_train_learning_rate"] == 4e-3
    assert seen["codelupe_train_tokens_per_second"] == 900
    assert seen["codelupe_train_eta_seconds"] == 33
    assert seen["codelupe_train_phase[train]"] == 1
    assert "codelupe_train_phase[load]" not in seen
    assert seen["codelupe_train_attention_info[sdpa]"] == 1


PLAN = {"event": "plan", "micro_batch": 4, "accumulation": 4, "checkpointed_layers": 3, "planned_bytes": 1 << 30}
PLANNED = ("micro_batch_sequences", "checkpointed_layers", "planned_bytes")


def test_the_plan_of_the_open_run_is_shown_beside_the_memory_that_it_has_had():
    record.record_event(PLAN)
    record.record_event({"event": "step", "step": 7, "micro_batch": 4, "peak_bytes": 1 << 29})
    seen = exported()
    assert [seen[f"codelupe_train_{name}"] for name in (*PLANNED, "peak_bytes")] == [4, 3, 1 << 30, 1 << 29]
    record.record_event(PLAN | {"micro_batch": 2, "checkpointed_layers": 0, "planned_bytes": 1 << 28})  # memory ran out
    assert [exported()[f"codelupe_train_{name}"] for name in PLANNED] == [2, 0, 1 << 28]


def test_live_figures_vanish_with_the_child():
    record.record_event(PLAN)
    record.record_event({"event": "phase", "phase": "train"})
    record.record_event({"event": "step", "step": 7, "total": 40, "loss": 2.5, "peak_bytes": 1 << 29})
    record.record_closed_run("held", 12.0)
    seen = exported()
    assert not {name for name in seen if name.startswith(("codelupe_train_step", "codelupe_train_loss"))}
    assert not {f"codelupe_train_{name}" for name in (*PLANNED, "peak_bytes")} & set(seen)
    assert not {name for name in seen if name.startswith("codelupe_train_phase")}
    assert seen["codelupe_run_state[idle]"] == 1


def test_progress_of_an_evaluation_shows_that_the_child_is_not_stalled():
    record.record_event({"event": "progress", "done": 3, "total": 9})
    assert exported()["codelupe_train_progress_timestamp_seconds"] > 1e9


@pytest.mark.parametrize(
    ("note", "metric"), [("out_of_memory", "train_oom_events"), ("checkpoint_failed", "train_checkpoint_failures")]
)
def test_what_went_wrong_in_a_training_that_goes_on_is_counted(note: str, metric: str):
    before = exported()[f"codelupe_{metric}_total"]
    record.record_event({"event": "note", "note": note})
    record.record_event({"event": "note", "note": "anything else"})
    assert exported()[f"codelupe_{metric}_total"] == before + 1


@pytest.mark.parametrize("event", [{}, {"event": "later_invention", "x": 1}, {"event": "step", "loss": None}])
def test_an_event_that_says_nothing_known_changes_no_figure(event):
    before = exported()
    record.record_event(event)
    changed = {name for name, value in exported().items() if before.get(name) != value}
    assert {name for name in changed if name.startswith("codelupe_train")} <= {
        "codelupe_train_progress_timestamp_seconds"
    }


def test_exactly_one_run_state_is_set():
    for state in metrics.RUN_STATES:
        record.record_run_state(state, number=3)
        states = {name: value for name, value in exported().items() if name.startswith("codelupe_run_state")}
        assert states[f"codelupe_run_state[{state}]"] == 1
        assert sum(states.values()) == 1


def test_a_failed_tick_is_a_sign_of_life_but_no_success():
    record.record_tick("idle", 0.1)
    success = exported()["codelupe_daemon_last_success_timestamp_seconds"]
    record.record_tick("failed", 0.1)
    seen = exported()
    assert seen["codelupe_daemon_last_success_timestamp_seconds"] == success
    assert seen["codelupe_daemon_last_tick_timestamp_seconds"] > success


def test_a_state_that_nobody_is_in_any_more_leaves_the_row_accounting():
    record.record_audit({"pending": 5, "quarantined": 1}, num_unaccounted=0)
    record.record_audit({"pending": 4}, num_unaccounted=2)
    seen = exported()
    assert seen["codelupe_store_rows[pending]"] == 4
    assert "codelupe_store_rows[quarantined]" not in seen
    assert seen["codelupe_rows_unaccounted"] == 2


def test_before_the_first_version_there_is_no_current_one():
    record.record_version(None, promoted_at_s=None, verified=False)
    assert not {name for name in exported() if name.startswith("codelupe_version")}
    record.record_version(3, promoted_at_s=1e9, verified=False)
    seen = exported()
    assert (seen["codelupe_version_current"], seen["codelupe_version_verified"]) == (3, 0)


def test_an_evaluation_replaces_the_one_before():
    figure = {"eval_set": "test", "metric": "bits_per_byte", "language": "", "unit": ""}
    record.record_evaluations([figure | {"model": model, "value": 2.1} for model in ("base", "incumbent", "candidate")])
    record.record_gain((0.05, 0.1, 0.15))
    python, of_a_unit = {"language": "python"}, {"unit": "repo/one"}
    record.record_evaluations(
        [figure | {"model": "candidate", "value": 2.2} | more for more in ({}, python, of_a_unit)]
    )
    record.record_gain(None)
    seen = exported()
    assert {name for name in seen if name.startswith("codelupe_evaluation")} == {
        "codelupe_evaluation_bits_per_byte[test][all][candidate]",
        "codelupe_evaluation_bits_per_byte[test][python][candidate]",
    }
    assert "codelupe_gate_gain_bits_per_byte[low]" not in seen


def test_ingest_is_counted_by_outcome_and_reason():
    # The counters are the process's own: other tests have counted too.
    before = Counter(exported())
    record.record_files({("new", ""): 3, ("refused", "binary"): 2}, num_rows=3, num_bytes=9000)
    record.record_repository("done", {"clone": 1.5, "save": 0.1})
    record.record_queue({"queued": 4})
    seen = exported()
    for name, more in (
        ("codelupe_ingest_files_total[refused][binary]", 2),
        ("codelupe_ingest_rows_total", 3),
        ("codelupe_ingest_stage_seconds_sum[clone]", 1.5),
    ):
        assert seen[name] - before[name] == pytest.approx(more)
    assert (seen["codelupe_ingest_queue_repositories[queued]"], seen["codelupe_ingest_queue_repositories[dead]"]) == (
        4,
        0,
    )


def test_a_failed_run_is_counted_with_its_reason_and_an_unknown_one_adds_no_label():
    before = exported()
    record.record_closed_run("failed", 1.0, reason="nan")
    record.record_closed_run("failed", 1.0, reason="later_invention")
    seen = exported()
    counted = {
        reason: seen[f"codelupe_runs_failed_total[{reason}]"] - before[f"codelupe_runs_failed_total[{reason}]"]
        for reason in metrics.FAILURE_REASONS
    }
    assert {reason for reason, num in counted.items() if num} == {"nan", "exception"}
    assert "codelupe_runs_failed_total[later_invention]" not in seen
