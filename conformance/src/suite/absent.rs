//! What is not run on any backend, and why.

use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::left_out("MK1", "all_or_none", "several locks at once are not built yet"),
    Scenario::left_out(
        "MK2",
        "reverse_order_does_not_lock_up",
        "several locks at once are not built yet",
    ),
    Scenario::left_out(
        "MK3",
        "one_timeout_for_all",
        "several locks at once are not built yet",
    ),
    Scenario::left_out(
        "MK4",
        "all_are_released",
        "several locks at once are not built yet",
    ),
    Scenario::left_out("MK5", "keys_apart", "several locks at once are not built yet"),
    Scenario::left_out("LE1", "one_leader", "elections are not built yet"),
    Scenario::left_out("LE2", "deposed_once", "elections are not built yet"),
    Scenario::left_out("LE3", "resigning_hands_over", "elections are not built yet"),
    Scenario::left_out("LE4", "flapping_connections", "elections are not built yet"),
    Scenario::left_out("LE5", "vanished_candidates", "elections are not built yet"),
    Scenario::left_out(
        "CL1",
        "the_childs_code_is_passed",
        "the scenario is not written yet",
    ),
    Scenario::left_out("CL2", "busy_has_its_code", "the scenario is not written yet"),
    Scenario::left_out(
        "CL3",
        "the_child_knows_its_lock",
        "the scenario is not written yet",
    ),
    Scenario::left_out(
        "CL4",
        "a_lost_lock_ends_the_child",
        "the scenario is not written yet",
    ),
    Scenario::left_out(
        "CL5",
        "signals_are_passed_and_the_lock_freed",
        "the scenario is not written yet",
    ),
    Scenario::left_out("CL6", "hiccups_kill_nobody", "the scenario is not written yet"),
    Scenario::left_out("CL7", "errors_have_codes", "the scenario is not written yet"),
    Scenario::left_out(
        "CL8",
        "a_killed_program_takes_its_child_along",
        "the scenario is not written yet",
    ),
];
