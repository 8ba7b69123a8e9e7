"""The drawn cuts: half of each kind, spread over the cards and over the whole run, the same again from the same seed."""

from __future__ import annotations

import pytest

from tests.rehearsal.playbook import TOP

from .plan import KNOWN, RERUN, Cut, Moment, draw


def test_a_seed_draws_the_same_again_and_another_seed_others() -> None:
    assert list(draw(7, 20, 12, 90)) == list(draw(7, 20, 12, 90))
    assert list(draw(7, 20, 12, 90)) != list(draw(8, 20, 12, 90))


@pytest.mark.parametrize(("cuts", "cards"), [(20, 12), (4, 1), (5, 5), (3, 2)])
def test_each_card_has_its_share_and_half_are_of_each_kind(cuts: int, cards: int) -> None:
    drawn = list(draw(1, cuts, cards, 90))
    assert len(drawn) == cards
    assert sum(map(len, drawn)) == cuts
    assert max(map(len, drawn)) - min(map(len, drawn)) <= 1
    kinds = [cut.kind for card in drawn for cut in card]
    assert 0 <= kinds.count("kill") - kinds.count("power") <= 1
    assert [cut for card in drawn for cut in card if cut == KNOWN] == [drawn[0][0]]


def test_moments_are_drawn_over_the_whole_first_run_and_a_part_of_the_others() -> None:
    drawn = [card for seed in range(100) for card in list(draw(seed, 8, 2, 90))[1:]]
    first = [card[0].moment.seconds for card in drawn]
    assert min(first) < 5
    assert 85 < max(first) <= 90
    later = [cut.moment.seconds for card in drawn for cut in card[1:]]
    assert min(later) < 5
    assert max(later) <= 90 * RERUN


def test_a_written_cut_is_read_again() -> None:
    cut = Cut("kill", Moment("vendor_package : Install influxdb2=2.9.*, held", 1.5))
    assert Cut.parse(str(cut)) == cut
    with pytest.raises(ValueError, match="neither"):
        Cut.parse("flood,1.0,start")


def test_the_known_cut_names_a_task_that_is_there() -> None:
    role, task = KNOWN.moment.task.split(" : ")
    files = (TOP / "roles" / role / "tasks").glob("*.yml")
    assert any(f"- name: {task}\n" in file.read_text(encoding="utf-8") for file in files)
