from __future__ import annotations

import pytest

from tests.builders import a_control
from trimtab.controls.bounds import Bounds
from trimtab.controls.catalogue import declare, learning_rate
from trimtab.controls.moves import Add, Multiply, SetTo
from trimtab.controls.reach import Journey, middle, reach_of


def test_the_middle_of_a_ratio_is_the_geometric_mean_and_of_a_difference_the_arithmetic_one() -> None:
    assert middle(learning_rate(1e-5, 1e-1)) == pytest.approx(1e-3)
    assert middle(a_control(bounds=Bounds(0.0, 10.0))) == 5.0


def test_the_middle_of_a_list_is_one_of_its_values() -> None:
    assert middle(a_control(moves=SetTo((0.0, 99.0, 3.0, 1.0)))) == 1.0


def test_the_middle_of_whole_numbers_can_be_reached_from_below() -> None:
    assert middle(declare("batch_size", 32, 1024)) == 128.0
    assert middle(a_control(is_whole=True, bounds=Bounds(1.0, 4.0))) == 2.0


def test_one_move_and_the_ways_to_both_ends() -> None:
    control = learning_rate(1.0, 16.0, moves=Multiply((0.5, 2.0)), largest_change=2.0, cumulative_drift=100.0)
    reach = reach_of(control)
    assert (reach.start, reach.one_move) == (4.0, (2.0, 8.0))
    assert (reach.up, reach.down) == (Journey(2, 16.0), Journey(2, 1.0))


def test_the_drift_from_the_start_ends_the_way() -> None:
    control = a_control(moves=Add((-1.0, 1.0)), cumulative_drift=3.0)
    assert (reach_of(control).up, reach_of(control).down) == (Journey(3, 8.0), Journey(3, 2.0))


def test_a_way_towards_zero_ends_where_moves_no_longer_matter() -> None:
    control = a_control(moves=Multiply((0.5,)), largest_change=10.0, cumulative_drift=10.0)
    assert 5 <= reach_of(control).down.num_moves <= 12


def test_small_values_of_a_list_are_all_reached() -> None:
    control = a_control(moves=SetTo((0.0, 1e-6, 1e-5, 1.0)), bounds=Bounds(0.0, 1.0))
    assert reach_of(control).down == Journey(1, 0.0)


def test_without_a_move_there_is_no_way() -> None:
    control = a_control(moves=Add((9.0,)), largest_change=2.0)
    assert reach_of(control).one_move == ()
    assert reach_of(control).up == Journey(0, 5.0)
