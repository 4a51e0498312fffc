//! The tables of a report, before somebody writes them down.

use crate::figure::Figure;
use crate::report::{Report, Section, Standing};

/// A table whose cells are texts.
pub(super) struct Table {
    /// Headings, in one or two words and the rest.
    pub(super) head: Vec<[String; 2]>,
    /// The first cell says who.
    pub(super) rows: Vec<Vec<String>>,
    /// What is to be read below it.
    pub(super) notes: Vec<String>,
}

enum Column {
    One(Figure),
    /// The least, the median and the most of the clients.
    Shares,
    /// To the reference.
    Ratio(Figure),
}

const SHARES: [Figure; 3] = [Figure::ShareLeast, Figure::ShareMedian, Figure::ShareMost];

impl Report {
    /// The table of `section`: what at least one contender has something to say of.
    pub(super) fn table(&self, section: &Section) -> Table {
        let columns = columns(section);
        let mut head = vec![[String::new(), "contender".to_owned()]];
        head.extend(columns.iter().map(Column::head));
        let mut notes: Vec<(String, String)> = Vec::new();
        let mut rows = Vec::new();
        for standing in &section.results {
            let label = self.label(&standing.entrant);
            let mut row = vec![label.clone()];
            row.extend(columns.iter().map(|column| column.cell(standing)));
            rows.push(row);
            let failure = standing
                .failure
                .iter()
                .map(|failure| format!("failed: {failure}"));
            for note in failure.chain(standing.median.notes.iter().cloned()) {
                // What is true of several is said once.
                match notes.iter_mut().find(|(_, other)| *other == note) {
                    Some((who, _)) => *who = format!("{who}, {label}"),
                    None => notes.push((label.clone(), note)),
                }
            }
        }
        let notes = notes
            .into_iter()
            .map(|(who, note)| format!("{who}: {note}"))
            .collect();
        Table { head, rows, notes }
    }
}

fn columns(section: &Section) -> Vec<Column> {
    let told = |figure: Figure| {
        let mut values = section.results.iter();
        values.any(|standing| standing.median.figures.contains_key(&figure))
    };
    let mut columns = Vec::new();
    for figure in section
        .case
        .scenario
        .figures()
        .iter()
        .copied()
        .filter(|figure| told(*figure))
    {
        let compared = columns.is_empty()
            && section
                .results
                .iter()
                .any(|standing| standing.ratios.contains_key(&figure));
        match figure {
            Figure::ShareLeast => columns.push(Column::Shares),
            Figure::ShareMedian | Figure::ShareMost => {}
            figure => columns.push(Column::One(figure)),
        }
        if compared {
            columns.push(Column::Ratio(figure));
        }
    }
    columns
}

impl Column {
    fn head(&self) -> [String; 2] {
        let heading = match self {
            Self::One(figure) => figure.heading(),
            Self::Shares => "per client least/median/most",
            Self::Ratio(_) => "to reference",
        };
        // The first word or two above, the rest below.
        let cut = match heading.find(" p50").or_else(|| heading.find(" p99")) {
            Some(cut) => Some(cut),
            None => heading.rfind(' '),
        };
        match cut {
            Some(cut) => [heading[..cut].to_owned(), heading[cut + 1..].to_owned()],
            None => [String::new(), heading.to_owned()],
        }
    }

    fn cell(&self, standing: &Standing) -> String {
        let show = |figure: Figure| {
            let value = standing.median.figures.get(&figure);
            value.map_or_else(|| "-".to_owned(), |value| figure.show(*value))
        };
        match self {
            Self::One(figure) => show(*figure),
            Self::Shares => SHARES.map(show).join("/"),
            Self::Ratio(figure) => match standing.ratios.get(figure) {
                Some(ratio) => format!("x {ratio:.2}"),
                None => String::new(),
            },
        }
    }
}
