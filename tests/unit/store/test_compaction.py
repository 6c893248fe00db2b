from controlplane.store.compaction import Mark, Plan, Retention, plan


def test_the_first_call_only_notes_the_time() -> None:
    assert plan((), now=0.0, newest=9000, compacted=0) == Plan(0, (Mark(0.0, 9000),))


def test_history_of_five_minutes_stays() -> None:
    marks = (Mark(0.0, 5000),)
    assert plan(marks, now=299.0, newest=90_000, compacted=0).compact_to == 0
    assert plan(marks, now=300.0, newest=90_000, compacted=0).compact_to == 5000


def test_the_last_thousand_revisions_stay() -> None:
    marks = (Mark(0.0, 5000),)
    assert plan(marks, now=10_000.0, newest=5400, compacted=0).compact_to == 4400


def test_a_small_step_waits() -> None:
    marks = (Mark(0.0, 5000),)
    assert plan(marks, now=300.0, newest=90_000, compacted=4501).compact_to == 0
    assert plan(marks, now=300.0, newest=90_000, compacted=4500).compact_to == 5000


def test_nothing_is_planned_below_the_last_compaction() -> None:
    marks = (Mark(0.0, 100),)
    assert plan(marks, now=300.0, newest=120, compacted=110).compact_to == 0


def test_marks_stay_few_however_often_it_is_asked() -> None:
    marks: tuple[Mark, ...] = ()
    compacted = 0
    for second in range(2000):
        decided = plan(marks, now=float(second), newest=second * 10, compacted=compacted)
        marks = decided.marks
        compacted = max(compacted, decided.compact_to)
        assert len(marks) <= 12
    assert 1600 * 10 <= compacted <= 1700 * 10


def test_no_mark_is_added_without_a_write() -> None:
    marks = (Mark(0.0, 5),)
    assert plan(marks, now=100.0, newest=5, compacted=0).marks == marks


def test_the_retention_is_a_setting() -> None:
    short = Retention(revisions=10, seconds=1.0, step=1)
    assert plan((Mark(0.0, 50),), now=1.0, newest=55, compacted=0, retention=short).compact_to == 45
