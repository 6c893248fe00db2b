"""Parts, who has a contested element, and the difference a change makes."""

from node.proxy.ruleset import EMPTY, Element, Part, Ruleset

ADDRESS = Element("service_ips", "192.0.2.1 . tcp . 80")


def part(rank: str, verdict: str, rules: tuple[str, ...] = ("drop",)) -> Part:
    return Part(rank=(rank,), chains={f"svc/{rank}": rules}, elements={ADDRESS: verdict})


def test_a_change_touches_only_what_differs() -> None:
    ruleset = Ruleset("ip", "t", "")
    ruleset.replace({("a",): part("1", "goto svc/1"), ("b",): Part(chains={"svc/b": ("drop",)})})
    text = ruleset.replace({("a",): part("1", "goto svc/1", ("accept",))})
    assert text == "flush chain ip t svc/1\nadd rule ip t svc/1 accept\n"
    assert ruleset.replace({("a",): part("1", "goto svc/1", ("accept",))}) == ""


def test_a_new_chain_is_there_before_what_refers_to_it_and_goes_after() -> None:
    ruleset = Ruleset("ip", "t", "")
    added = ruleset.replace({("a",): part("1", "goto svc/1")}).splitlines()
    assert added == [
        "add chain ip t svc/1",
        "add rule ip t svc/1 drop",
        "add element ip t service_ips { 192.0.2.1 . tcp . 80 : goto svc/1 }",
    ]
    removed = ruleset.replace({("a",): EMPTY}).splitlines()
    assert removed == [
        "delete element ip t service_ips { 192.0.2.1 . tcp . 80 }",
        "flush chain ip t svc/1",
        "delete chain ip t svc/1",
    ]


def test_the_lower_rank_has_an_element_and_the_other_inherits_it() -> None:
    ruleset = Ruleset("ip", "t", "")
    ruleset.replace({("new",): part("2", "goto svc/2")})
    assert ruleset.value(ADDRESS) == "goto svc/2"
    ruleset.replace({("old",): part("1", "goto svc/1")})
    assert ruleset.value(ADDRESS) == "goto svc/1"
    assert (ruleset.losers(("new",)), ruleset.losers(("old",))) == ([ADDRESS], [])
    ruleset.replace({("old",): EMPTY})
    assert ruleset.value(ADDRESS) == "goto svc/2"


def test_the_whole_table_replaces_what_was_there_in_one_go() -> None:
    ruleset = Ruleset("ip", "t", "map service_ips { }\n")
    ruleset.replace({("a",): part("1", "goto svc/1")})
    assert ruleset.full().splitlines() == [
        "add table ip t",
        "delete table ip t",
        "table ip t {",
        "map service_ips { }",
        "chain svc/1 { }",
        "}",
        "add rule ip t svc/1 drop",
        "add element ip t service_ips { 192.0.2.1 . tcp . 80 : goto svc/1 }",
    ]
