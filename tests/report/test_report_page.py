from html.parser import HTMLParser

import pytest
from report_runs import METRICS, facts, final_test, sweep, trace

from disttgl_hpc.report.page import render_report
from disttgl_hpc.report.result_tables import results_tables
from disttgl_hpc.report.run_facts import group_runs


class Page(HTMLParser):
    """What a browser would load, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "input", "circle", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.tags, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [
            value for name, value in attributes if name in {"src", "href", "srcset", "data", "action"}
        ]
        if tag not in self.VOID or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page_of(*runs):
    text = render_report(runs)
    page = Page(text)
    assert page.open == []
    assert all(address.startswith("data:") for address in page.loaded)
    assert "script" not in page.tags
    assert "@import" not in text
    assert "url(" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "nothing to be loaded from anywhere"
    assert len(text) < 3 << 20
    return text, page


def test_a_finished_run_has_all_sections_and_loads_nothing():
    text, _ = page_of(facts(trace=trace()))
    for title in (
        "Results",
        "Learning",
        "Where the time goes",
        "A window of steps",
        "Staleness of the memory",
    ):
        assert f">{title}<" in text
    assert "finished, 2 sweeps" in text
    assert "within 90.0 µs" in text
    assert "<dt>lr</dt><dd>0.001</dd>" in text


def test_runs_are_compared_and_their_differences_come_before_their_settings():
    runs = [facts("lin-0"), facts("lin-1", seed=1, mrr=0.7), facts("sqrt", lr=0.1)]
    text, _ = page_of(*runs)
    assert text.index("Settings that differ") < text.index("All settings of lin-0")
    assert "lin (2 seeds), test" in text
    assert "0.6500 ± 0.0707" in text


UNFINISHED = {
    "nothing": facts(sweeps=0, test=False),
    "killed": facts(sweeps=1, test=False),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_unfinished_runs_have_a_page(name):
    text, _ = page_of(UNFINISHED[name])
    assert "No run has been tested" in text
    assert ("No sweep has been recorded" in text) == (name == "nothing")


def test_older_records_have_a_page():
    old = sweep(1)
    del old["events"], old["timing"]["course"], old["timing"]["trainers"], old["timing"]["daemons"]
    bare = {"record": "sweep", "loss": 0.4}
    run = facts()
    object.__setattr__(run, "sweeps", [old, bare])
    object.__setattr__(run, "test", {"record": "test", "test": METRICS, "validation": METRICS})
    text, _ = page_of(run)
    assert "Where the time goes" not in text
    assert "TGN, test" in text


def test_names_and_settings_are_shown_as_they_are_never_as_html():
    _, page = page_of(facts("<script>alert(1)</script>", static="<img src=x>"), facts("b"))
    assert "img" not in page.tags
    assert any("<script>alert(1)</script>" in text for text in page.texts)


def test_a_large_job_has_a_small_page():
    run = facts()
    object.__setattr__(run, "sweeps", [sweep(number, ranks=2048) for number in range(1, 301)])
    text, _ = page_of(run)
    assert len(text) < 3 << 20


def test_results_stand_beside_what_they_must_beat_and_the_best_is_marked():
    (table,) = results_tables(group_runs([facts(mrr=0.6), facts(seed=1, mrr=0.3)]))
    assert [name for name, _, _ in table.rows] == ["TGN", "TGN", "PopTrack"]
    assert [cells[0].text for _, _, cells in table.rows] == ["0.5000 ± 0.0000", "0.4500 ± 0.2121", "0.4000"]
    assert [cells[0].is_best for _, _, cells in table.rows] == [False, True, False]


def test_classes_and_new_nodes_have_tables_of_their_own():
    record = final_test()
    record["test"] |= {
        "inductive": {"mrr": 0.2, "new_sources": 3},
        "classes": {"f1_micro": 0.7, "roc_auc": None},
    }
    record["heuristics"]["poptrack"]["inductive"] = {"mrr": 0.25}
    record["baselines"] = {"last_label": {"f1_micro": 0.6}}
    run = facts()
    object.__setattr__(run, "test", record)
    tables = {table.title: table for table in results_tables(group_runs([run]))}
    assert list(tables) == ["links", "links with nodes that training has not seen", "classes"]
    assert [(name, cells[0].text) for name, _, cells in tables["classes"].rows] == [
        ("TGN", "–"),
        ("TGN", "0.7000"),
        ("last label", "0.6000"),
    ]
    new = tables["links with nodes that training has not seen"]
    assert (new.columns, new.rows[-1][2][0].text) == (["MRR"], "0.2500")
