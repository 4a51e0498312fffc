//! The page with charts.

use std::time::Duration;

use leasehold_measure::{Case, Report};
use roxmltree::{Document, ParsingOptions};

use crate::support::{memory, one_of_each, runner};

/// What is drawn, by heading; everything that a reader needs has to be there.
fn check(page: &str) -> Vec<String> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    let document =
        Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}: {page}"));
    let all = |name: &'static str| {
        document
            .descendants()
            .filter(move |node| node.tag_name().name() == name)
    };
    assert_eq!(
        (all("script").count(), all("link").count(), all("img").count()),
        (0, 0, 0)
    );
    assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("));
    let mut headings = Vec::new();
    for figure in all("figure") {
        let name = |node: &roxmltree::Node<'_, '_>, name| node.tag_name().name() == name;
        let heading = figure
            .descendants()
            .find(|node| name(node, "figcaption"))
            .unwrap();
        let heading = heading.text().unwrap().to_owned();
        let svg = figure.descendants().find(|node| name(node, "svg")).unwrap();
        assert_eq!(svg.attribute("aria-label"), Some(&*heading));
        let texts = svg.descendants().filter(|node| name(node, "text"));
        let texts: Vec<_> = texts
            .filter_map(|node| Some(node.text()?.trim().to_owned()))
            .collect();
        assert!(
            texts
                .iter()
                .any(|text| text == "first" || text.starts_with("first ")),
            "{heading}: {texts:?}"
        );
        assert!(
            texts
                .iter()
                .any(|text| text == "second" || text.starts_with("second ")),
            "{heading}: {texts:?}"
        );
        let units = ["us", "ms", "%", "per second", "bytes"];
        assert!(
            units
                .iter()
                .any(|unit| texts.iter().any(|text| text.contains(unit))),
            "{heading}: {texts:?}"
        );
        let ticks = texts
            .iter()
            .filter(|text| text.starts_with(|char: char| char.is_ascii_digit()));
        assert!(ticks.count() >= 3, "{heading}: {texts:?}");
        headings.push(heading);
    }
    headings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_well_formed_and_has_every_chart() {
    let report = runner(vec![memory("first"), memory("second")], one_of_each(), 1)
        .version("<b>&", "\"1\"")
        .run()
        .await;
    let page = report.to_html().unwrap();
    let headings = check(&page);
    for part in [
        "acquire and release, distribution; S1",
        "throughput against tasks",
        "hand-off, distribution; S3",
        "fairness; S3",
        "hand-off against clients",
        "hand-off, distribution; S4: 6 clients",
        "fairness; S4",
        "client CPU; S5",
        "client memory per lock; S5",
        "acquisitions per second; S7",
        "median wait of the other client; S7",
        "acquisitions per second; S8",
        "acquire, distribution; S8",
    ] {
        assert!(
            headings.iter().any(|heading| heading.starts_with(part)),
            "{part}: {headings:?}"
        );
    }
    // A program that has kept the JSON can draw it later.
    let read: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(read.to_html().unwrap(), page);
}

#[tokio::test]
async fn many_contenders_are_drawn_in_groups() {
    let contenders = (0..10).map(|_| memory("first")).collect();
    let report = runner(contenders, vec![Case::latency(Duration::from_millis(5))], 1)
        .run()
        .await;
    let page = report.to_html().unwrap();
    assert_eq!(page.matches("<svg ").count(), 2, "8 and 2");
}

#[tokio::test]
async fn nothing_to_draw_is_a_page_too() {
    let report = runner(vec![memory("first")], vec![], 1).run().await;
    assert!(check(&report.to_html().unwrap()).is_empty());
}
