//! NM: names are told apart, whatever they are.

use std::collections::BTreeSet;

use lockcore::{ErrorKind, Kind, LockManager, LockName, MAX_NAME_BYTES, Namespace, Resource, decode_key};

use super::common::{expect_error, gets, is_released, random, refused};
use crate::client::{Client, Held};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("NM1", "odd_names_are_names", |cx| Box::pin(nm1(cx))),
    Scenario::new("NM2", "case_counts", |cx| Box::pin(nm2(cx))),
    Scenario::new("NM3", "trailing_spaces_and_dots_count", |cx| Box::pin(nm3(cx))),
    Scenario::new("NM4", "prefixes_are_no_relatives", |cx| Box::pin(nm4(cx))),
    Scenario::new("NM5", "keys_are_injective_and_stable", |cx| Box::pin(nm5(cx))),
    Scenario::new("NM6", "namespaces_are_apart", |cx| Box::pin(nm6(cx))),
    Scenario::new("NM7", "kinds_are_apart", |cx| Box::pin(nm7(cx))).needs(&[Need::Weighted]),
    Scenario::left_out(
        "NM8",
        "raw_names_of_other_tools",
        "locks that other tools take by their own names are not built yet",
    ),
    Scenario::new("NM9", "no_case_folding_of_any_language", |cx| Box::pin(nm9(cx))),
    Scenario::left_out(
        "NM10",
        "numbers_of_other_tools",
        "it is about PostgreSQL's advisory locks: its driver tests it",
    ),
    Scenario::new("NM11", "bad_names_of_all_sorts_at_once", |cx| Box::pin(nm11(cx))),
];

/// All of `names` can be held at once, each is refused to others, and they are listed as what they are.
async fn are_apart(cx: &Context, names: &[String]) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let mut held: Vec<Held> = Vec::new();
    for name in names {
        let Some(acquired) = a.lock(name).try_acquire().await? else {
            return Err(crate::Failure::new(format!(
                "{name:?} is one with one of {:?}",
                &names[..held.len()]
            )));
        };
        ensure_eq!(acquired.name().as_str(), name);
        held.push(acquired);
    }
    for name in names {
        refused(b.lock(name))
            .await
            .map_err(|failure| failure.after(&format!("{name:?}")))?;
    }
    if cx.capabilities().list {
        let expected: BTreeSet<_> = names.iter().cloned().collect();
        ensure_eq!(listed(&b, "").await?, expected);
    }
    // Releasing one frees that one alone.
    for (index, acquired) in held.into_iter().enumerate() {
        is_released(acquired).await?;
        is_released(gets(b.lock(&names[index]), cx.slack()).await?).await?;
        if let Some(next) = names.get(index + 1) {
            refused(b.lock(next))
                .await
                .map_err(|failure| failure.after(&format!("{next:?}")))?;
        }
    }
    Ok(())
}

async fn listed(client: &Client, prefix: &str) -> Checked<BTreeSet<String>> {
    let found = client.list(prefix).await?;
    ensure!(
        found.is_sorted_by_key(|status| &status.name),
        "not in order of the names"
    );
    Ok(found
        .iter()
        .map(|status| status.name.as_str().to_owned())
        .collect())
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn nm1(cx: Context) -> Checked {
    let mut names = owned(&[
        "a",
        "/",
        "//",
        "\\",
        "\\\\",
        ".",
        "..",
        "...",
        "./a",
        "../a",
        "a/",
        "/a",
        "a//b",
        "a/b",
        "zookeeper",
        "\0",
        "a\0",
        "a\0b",
        "\u{1}",
        "\n",
        "\r\n",
        "\t",
        "\u{7f}",
        "\u{1b}[2J",
        " ",
        "*",
        "?",
        "[a]",
        "[a-z]",
        "^a",
        "{tag}",
        "{tag}a",
        "{",
        "}",
        "{}",
        "a{b}c",
        ":",
        "a:b",
        "::",
        "%",
        "%00",
        "%2F",
        "%25",
        "~",
        "a~b",
        "'",
        "''",
        "\"",
        "`",
        ";",
        "--",
        "'; DROP TABLE leases; --",
        "$1",
        "${a}",
        "$(a)",
        "#",
        "&",
        "|",
        "<a>",
        "=",
        "+",
        ",",
        "null",
        "NULL",
        "true",
        "0",
        "-1",
        "1e3",
        "con",
        "nul",
        "\u{e9}",
        "e\u{301}",
        "\u{1f512}",
        "\u{1f468}\u{200d}\u{1f469}",
        "\u{202e}abc",
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "\u{feff}a",
        "\u{fffd}",
        "\u{10ffff}",
    ]);
    let long = "x".repeat(MAX_NAME_BYTES - 1);
    names.extend(["a", "b"].map(|last| format!("{long}{last}")));
    names.extend([
        long,
        "/".repeat(MAX_NAME_BYTES),
        "\u{1f512}".repeat(MAX_NAME_BYTES / 4),
    ]);
    names.extend((100..=200).step_by(20).map(|length| "y".repeat(length)));
    are_apart(&cx, &names).await?;
    let a = cx.client().await?;
    for bad in [
        String::new(),
        "x".repeat(MAX_NAME_BYTES + 1),
        "x".repeat(65 * 1024),
    ] {
        expect_error(a.lock(&bad).try_acquire().await, ErrorKind::Invalid)?;
        expect_error(a.lock(&bad).build(), ErrorKind::Invalid)?;
        if cx.capabilities().inspect {
            expect_error(a.inspect(&bad).await, ErrorKind::Invalid)?;
        }
    }
    ensure_eq!(a.link().all_calls(), 0);
    Ok(())
}

async fn nm2(cx: Context) -> Checked {
    are_apart(
        &cx,
        &owned(&[
            "abc", "ABC", "Abc", "aBC", "\u{e4}", "\u{c4}", "\u{3c3}", "\u{3a3}", "\u{3c2}",
        ]),
    )
    .await
}

async fn nm3(cx: Context) -> Checked {
    are_apart(
        &cx,
        &owned(&[
            "a",
            "a ",
            "a  ",
            " a",
            "a.",
            "a..",
            ".a",
            "a\t",
            "a\n",
            "a\u{a0}",
            "a\u{200b}",
            "a\0",
        ]),
    )
    .await
}

/// Names that begin like others, and listing by such beginnings.
async fn nm4(cx: Context) -> Checked {
    let names = owned(&[
        "a", "a/", "a/b", "a/b/c", "a:b", "a:", "ab", "a%2Fb", "aa", "a~", "A/b",
    ]);
    are_apart(&cx, &names).await?;
    if !cx.capabilities().list {
        return Ok(());
    }
    let a = cx.client().await?;
    let mut held = Vec::new();
    for name in &names {
        held.push(gets(a.lock(name), cx.slack()).await?);
    }
    for prefix in ["a", "a/", "a/b", "a:", "A", "a%", "b", "*", "a?", "%", "a_", ""] {
        let expected: BTreeSet<_> = names
            .iter()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        let found = listed(&a, prefix).await?;
        ensure!(found == expected, "{prefix:?}: {found:?}, not {expected:?}");
    }
    Ok(())
}

/// Random names from characters that are easily mixed up; and keys that must never change, since they are stored.
async fn nm5(cx: Context) -> Checked {
    const MIXED: &[&str] = &[
        "a", "A", "/", "%", "%2F", ".", "~", ":", " ", "\0", "{", "\u{e9}", "e\u{301}", "_", "-",
    ];
    let mut names = BTreeSet::new();
    while names.len() < 100 {
        let length = 1 + random(cx.env(), 4);
        let parts =
            (0..length).map(|_| MIXED[random(cx.env(), u32::try_from(MIXED.len()).unwrap_or(1)) as usize]);
        names.insert(parts.collect::<String>());
    }
    let names: Vec<_> = names.into_iter().collect();
    are_apart(&cx, &names).await?;
    let key = |name: &str| {
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name)?);
        Checked::Ok(resource.key().to_owned())
    };
    for name in &names {
        let decoded = decode_key(&key(name)?);
        ensure_eq!(decoded.as_ref().map(LockName::as_str), Some(name.as_str()));
    }
    for (name, expected) in [
        ("orders/42", "orders%2F42"),
        ("..", "%2E%2E"),
        ("~", "%7E"),
        ("\u{e9}", "%C3%A9"),
    ] {
        ensure_eq!(key(name)?, expected);
    }
    Ok(())
}

/// Two applications on one server, with names that look alike when they are written one behind the other.
async fn nm6(cx: Context) -> Checked {
    let mut held = Vec::new();
    let base = cx.settings().namespace;
    let space = |tail: &str| Namespace::new(format!("{}{tail}", &base.as_str()[..40]));
    for (tail, name) in [
        ("", "b"),
        ("a", "b"),
        ("a", "b/c"),
        ("a/b", "c"),
        ("a:m", "b"),
        ("a:", "m:b"),
        ("A", "b"),
        ("a ", "b"),
    ] {
        let mut settings = cx.settings();
        settings.namespace = space(tail)?;
        let client = cx.client_with(settings).await?;
        let Some(acquired) = client.lock(name).try_acquire().await? else {
            return Err(crate::Failure::new(format!(
                "{tail:?} and {name:?} are somebody else's"
            )));
        };
        if cx.capabilities().list {
            let mine = listed(&client, "").await?;
            ensure!(mine.contains(name) && mine.len() <= 2, "{tail:?} lists {mine:?}");
        }
        held.push((client, name, acquired));
    }
    for (client, name, acquired) in held {
        refused(client.lock(name)).await?;
        is_released(acquired).await?;
    }
    Ok(())
}

/// One name as three kinds is three locks.
async fn nm7(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let mutex = a.lock(&name).acquire().await?;
    let Some(writer) = b.write_lock(&name).try_acquire().await? else {
        return Err(crate::Failure::new("a mutex excludes a writer of the same name"));
    };
    let Some(permit) = b.semaphore(&name, 2, 2).try_acquire().await? else {
        return Err(crate::Failure::new(
            "a mutex or a writer excludes a permit of the same name",
        ));
    };
    ensure_eq!([mutex.kind(), writer.kind(), permit.kind()], Kind::ALL);
    if cx.capabilities().inspect {
        let found: Vec<_> = a.inspect(&name).await?.iter().map(|status| status.kind).collect();
        ensure_eq!(found, Kind::ALL);
    }
    is_released(mutex).await?;
    ensure!(writer.is_held() && permit.is_held());
    refused(a.write_lock(&name)).await?;
    refused(a.semaphore(&name, 1, 2)).await?;
    if !cx.capabilities().force_release {
        is_released(writer).await?;
        refused(a.semaphore(&name, 1, 2)).await?;
        return is_released(permit).await;
    }
    // By force all kinds are freed.
    cx.disturbed();
    ensure!(a.force_release(&name).await?);
    for held in [writer, permit] {
        let ttl = held.ttl();
        cx.within("the loss is told", ttl / 3 + cx.slack(), held.lost())
            .await?;
    }
    is_released(gets(a.write_lock(&name), cx.slack()).await?).await?;
    is_released(gets(a.semaphore(&name, 2, 2), cx.slack()).await?).await
}

async fn nm9(cx: Context) -> Checked {
    are_apart(
        &cx,
        &owned(&[
            "i", "I", "\u{131}", "\u{130}", "i\u{307}", "ss", "SS", "\u{df}", "\u{1e9e}", "k", "K",
            "\u{212a}", "\u{fb01}", "fi", "\u{e5}", "a\u{30a}", "\u{212b}", "\u{ff21}", "\u{2126}",
            "\u{3c9}",
        ]),
    )
    .await
}

/// One of every sort that some store folds, cuts, pads, splits or refuses, all held at one time: each is refused to
/// others, and none is another one.
async fn nm11(cx: Context) -> Checked {
    let mut names = owned(&[
        "Job",
        "job",
        "JOB",
        "jo",
        "job ",
        "job  ",
        " job",
        "job\t",
        "job.",
        "job\0",
        "job\0 ",
        "\0job",
        "job/",
        "/job",
        "job//",
        "job/a",
        "job:a",
        "..",
        "../job",
        "./job",
        ".",
        "/",
        "{job}",
        "{}",
        "{",
        "j{o}b",
        "j%6fb",
        "job%",
        "job%20",
        "job_",
        "job*",
        "job?",
        "'job'",
        "\"job\"",
        "job;--",
        "\u{1f512}",
        "\u{1f513}",
        "job\u{1f512}",
        "j\u{f6}b",
        "jo\u{308}b",
        "\u{202e}job",
        "\n",
        "\u{7f}",
        "\u{ffff}",
        "zookeeper",
        "null",
    ]);
    let long = "n".repeat(MAX_NAME_BYTES - 1);
    names.extend(["a", "b", "A", " ", "\0", "/"].map(|end| format!("{long}{end}")));
    names.push("N".repeat(MAX_NAME_BYTES));
    names.push("n".repeat(MAX_NAME_BYTES));
    names.push(long);
    are_apart(&cx, &names).await
}
