//! The catalogue: every scenario that runs, and every id that does not, with the reason.

mod absent;
mod administration;
mod cancel;
mod cli;
mod cluster;
mod common;
mod connections;
mod cost;
mod crossing;
mod drivers;
mod exclusion;
mod expiry;
mod fairness;
mod faults;
mod fencing;
mod handles;
mod leaks;
mod loss;
mod mutex_like;
mod names;
mod network;
mod process;
mod reach;
mod read_write;
mod renewal;
mod renewal_races;
mod semaphore;
mod sessions;
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
    sessions::SCENARIOS,
    cancel::SCENARIOS,
    leaks::SCENARIOS,
    fairness::SCENARIOS,
    read_write::SCENARIOS,
    semaphore::SCENARIOS,
    fencing::SCENARIOS,
    handles::SCENARIOS,
    names::SCENARIOS,
    drivers::SCENARIOS,
    process::SCENARIOS,
    faults::SCENARIOS,
    administration::SCENARIOS,
    crossing::SCENARIOS,
    cluster::SCENARIOS,
    cost::SCENARIOS,
    cli::SCENARIOS,
    absent::SCENARIOS,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::Group;

    /// How many ids each group has: those of the catalogue, and some that were added behind them.
    const SIZES: [(&str, usize); 17] = [
        ("ME", 15),
        ("WT", 10),
        ("EX", 13),
        ("RN", 16),
        ("LD", 12),
        ("CX", 10),
        ("FQ", 13),
        ("RW", 10),
        ("SM", 13),
        ("MK", 5),
        ("FE", 6),
        ("HL", 12),
        ("NM", 11),
        ("FT", 24),
        ("LE", 5),
        ("CL", 10),
        ("CO", 3),
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

    /// The contract names what proves it: each id there is one of ours.
    #[test]
    fn the_contract_names_scenarios_that_exist() {
        let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guarantees.md");
        let contract = std::fs::read_to_string(contract).unwrap();
        let ids: BTreeSet<_> = all().map(|scenario| scenario.id).collect();
        let words = contract.split(|c: char| !c.is_ascii_alphanumeric());
        let named: BTreeSet<_> = words
            .filter(|word| word.ends_with(|c: char| c.is_ascii_digit()) && Group::of(word).is_some())
            .collect();
        let unknown: Vec<_> = named.difference(&ids).collect();
        assert!(
            named.len() > 50 && unknown.is_empty(),
            "{unknown:?} of {}",
            named.len()
        );
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
