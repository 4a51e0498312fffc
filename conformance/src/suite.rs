//! The catalogue: every scenario that runs, and every id that does not, with the reason.

mod absent;
mod cancel;
mod cli;
mod common;
mod connections;
mod drivers;
mod exclusion;
mod expiry;
mod fairness;
mod faults;
mod fencing;
mod handles;
mod loss;
mod mutex_like;
mod names;
mod network;
mod process;
mod read_write;
mod renewal;
mod renewal_races;
mod semaphore;
mod waiting;

use crate::scenario::Scenario;

/// Every scenario, in the order of the catalogue's groups.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    GROUPS.iter().copied().flatten()
}

const GROUPS: &[&[Scenario]] = &[
    exclusion::SCENARIOS,
    waiting::SCENARIOS,
    expiry::SCENARIOS,
    renewal::SCENARIOS,
    renewal_races::SCENARIOS,
    loss::SCENARIOS,
    cancel::SCENARIOS,
    fairness::SCENARIOS,
    read_write::SCENARIOS,
    semaphore::SCENARIOS,
    fencing::SCENARIOS,
    handles::SCENARIOS,
    names::SCENARIOS,
    drivers::SCENARIOS,
    process::SCENARIOS,
    faults::SCENARIOS,
    cli::SCENARIOS,
    absent::SCENARIOS,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// How many ids each group has: those of the catalogue, and some that were added behind them.
    const SIZES: [(&str, usize); 16] = [
        ("ME", 14),
        ("WT", 10),
        ("EX", 11),
        ("RN", 14),
        ("LD", 11),
        ("CX", 9),
        ("FQ", 10),
        ("RW", 10),
        ("SM", 13),
        ("MK", 5),
        ("FE", 6),
        ("HL", 12),
        ("NM", 10),
        ("FT", 20),
        ("LE", 5),
        ("CL", 10),
    ];

    #[test]
    fn every_id_is_there_once() {
        let expected: BTreeSet<_> = SIZES
            .iter()
            .flat_map(|(group, size)| (1..=*size).map(move |number| format!("{group}{number}")))
            .collect();
        let ids: Vec<_> = all().map(|scenario| scenario.id.to_owned()).collect();
        let unique: BTreeSet<_> = ids.iter().cloned().collect();
        assert_eq!(unique, expected);
        assert_eq!(ids.len(), unique.len(), "an id is there twice");
    }

    #[test]
    fn titles_are_names() {
        for scenario in all() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(
                !scenario.title.is_empty() && scenario.title.chars().all(plain),
                "{}: {}",
                scenario.id,
                scenario.title
            );
        }
    }
}
