//! A report as one file for a browser, which needs nothing else.

use std::fmt::Write;

use crate::contender::Failure;
use crate::report::Report;
use crate::report::charts::Chart;

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; color: #202124; background: #fff; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2.2em; border-top: 1px solid #dee0e4; padding-top: 0.8em; }
figure { margin: 1.2em 0; } figcaption { font-weight: 600; margin-bottom: 0.3em; }
svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.7em; border-bottom: 1px solid #dee0e4; text-align: right; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.alarm { background: #fce8e6; border-left: 5px solid #c5221f; padding: 0.6em 1em; font-weight: 600; }
";

impl Report {
    /// As HTML with charts: one file, no script, nothing from the network.
    ///
    /// # Errors
    /// When a chart cannot be drawn, which nothing that is known leads to.
    pub fn to_html(&self) -> Result<String, Failure> {
        let charts = self.charts()?;
        let mut page = String::new();
        self.page(&mut page, &charts)?;
        Ok(page)
    }

    fn page(&self, page: &mut String, charts: &[Chart]) -> std::fmt::Result {
        let title = "Distributed locks, measured";
        write!(
            page,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        )?;
        self.facts(page)?;
        let mut last = None;
        for section in &self.sections {
            let (id, scenario) = (escaped(&section.id), section.case.scenario);
            writeln!(page, "<h2 id=\"{id}\">{}</h2>", escaped(&section.title))?;
            if last.replace(scenario) != Some(scenario) {
                writeln!(page, "<p>{}</p>", escaped(scenario.description()))?;
            }
            let table = self.table(section);
            page.push_str("<div class=\"wide\"><table>\n<tr>");
            for head in &table.head {
                write!(page, "<th scope=\"col\">{}</th>", escaped(head.join(" ").trim()))?;
            }
            page.push_str("</tr>\n");
            for row in &table.rows {
                page.push_str("<tr>");
                for cell in row {
                    write!(page, "<td>{}</td>", escaped(cell))?;
                }
                page.push_str("</tr>\n");
            }
            page.push_str("</table></div>\n");
            for note in &table.notes {
                writeln!(page, "<p>{}</p>", escaped(note))?;
            }
            for chart in charts.iter().filter(|chart| chart.section == section.id) {
                let title = escaped(&chart.title);
                let svg =
                    chart
                        .svg
                        .replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1);
                writeln!(page, "<figure><figcaption>{title}</figcaption>\n{svg}</figure>")?;
            }
        }
        page.push_str("</body>\n</html>\n");
        Ok(())
    }

    fn facts(&self, page: &mut String) -> std::fmt::Result {
        let class = if self.is_alarming() {
            " class=\"alarm\""
        } else {
            ""
        };
        writeln!(page, "<div{class}>")?;
        for line in self.conclusion().lines() {
            writeln!(page, "<p>{}</p>", escaped(line.trim()))?;
        }
        writeln!(page, "</div>\n<ul>")?;
        writeln!(
            page,
            "<li>Measured on {}, in {:.0} s.</li>",
            self.started, self.seconds
        )?;
        writeln!(page, "<li>{}</li>", escaped(&self.machine.line()))?;
        for (what, version) in &self.versions {
            writeln!(page, "<li>{}: {}</li>", escaped(what), escaped(version))?;
        }
        let rounds = self.plan.rounds;
        writeln!(
            page,
            "<li>Medians of {rounds} rounds, in each of which everybody has a turn.</li>\n</ul>"
        )
    }
}

/// Text that means itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
