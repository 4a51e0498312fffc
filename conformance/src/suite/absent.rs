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
    Scenario::left_out("FT1", "server_restart", "the scenario is not written yet"),
    Scenario::left_out("FT2", "server_down_at_acquire", "the scenario is not written yet"),
    Scenario::left_out(
        "FT3",
        "server_forgets_data_and_scripts",
        "the scenario is not written yet",
    ),
    Scenario::left_out(
        "FT4",
        "network_faults_on_each_request",
        "the scenario is not written yet",
    ),
    Scenario::left_out(
        "FT5",
        "one_broken_connection_poisons_nothing",
        "the scenario is not written yet",
    ),
    Scenario::left_out("FT6", "idle_connections_live", "the scenario is not written yet"),
    Scenario::left_out(
        "FT7",
        "connections_are_given_back_clean",
        "the scenario is not written yet",
    ),
    Scenario::left_out("FT8", "quorum_faults", "the scenario is not written yet"),
    Scenario::left_out("FT9", "failover", "the scenario is not written yet"),
    Scenario::left_out("FT10", "leader_changes", "the scenario is not written yet"),
    Scenario::left_out("FT11", "clock_jumps", "the scenario is not written yet"),
    Scenario::left_out("FT12", "eviction_is_warned_of", "the scenario is not written yet"),
    Scenario::left_out("FT13", "deadlock_reports", "the scenario is not written yet"),
    Scenario::left_out("FT14", "late_grant_errors", "the scenario is not written yet"),
    Scenario::left_out("FT15", "exhausted_pools", "the scenario is not written yet"),
    Scenario::left_out("FT16", "bad_logins_are_told", "the scenario is not written yet"),
    Scenario::left_out("FT17", "container_clean_up", "the scenario is not written yet"),
    Scenario::left_out("FT18", "too_many_clients", "the scenario is not written yet"),
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
