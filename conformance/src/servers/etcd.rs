//! etcd.

use std::{io, path::Path};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    engine::{Engine, Facts, Login, LoginRule, Place, Recipe, USER},
    http, tls,
};

#[derive(Debug)]
pub(super) struct Etcd;

/// The one user who may switch authentication on, and its password here.
const ROOT: (&str, &str) = ("root", "leasehold-root");

#[async_trait]
impl Engine for Etcd {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "etcd",
            url_variable: "LEASEHOLD_TEST_ETCD_URL",
            program: "etcd",
            package: Some("etcd-server"),
            user: Some("etcd"),
            official: ("quay.io/coreos/etcd", "v3.5.21"),
            built: ("leasehold-test/etcd", "3.5"),
            port: 2379,
            tls_port: Some(2378),
            waits_for_disk: true,
            data: "/var/lib/etcd",
            scheme: "etcd",
            tls_scheme: "etcds",
            tls_options: "",
            other_schemes: &["http"],
            path: "",
            login: LoginRule::Optional(Some(USER)),
            admin: Some(ROOT),
            asks_for_certificates: true,
            steps_clock: false,
            clusters: true,
        }
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        let mut recipe = self.recipe("etcd", place);
        // Not every version on a machine knows it: there the data are in memory.
        recipe.command.push("--unsafe-no-fsync".into());
        recipe
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        self.recipe(&program.to_string_lossy(), place)
    }

    async fn probe(&self, address: &str, _: &Login) -> io::Result<Option<String>> {
        let health = json_of(&http::get(address, "/health").await?)?;
        if health.get("health").and_then(Value::as_str) != Some("true") {
            return Err(io::Error::other(health.to_string()));
        }
        let version = json_of(&http::get(address, "/version").await?)?;
        Ok(version.get("etcdserver").and_then(Value::as_str).map(Into::into))
    }

    async fn leads(&self, address: &str) -> io::Result<Option<u64>> {
        let status = json_of(&http::post(address, "/v3/maintenance/status", "{}").await?)?;
        let leader = status.get("leader").and_then(Value::as_str);
        let me = status.pointer("/header/member_id").and_then(Value::as_str);
        let term = status.get("raftTerm").and_then(Value::as_str);
        let term = term.and_then(|term| term.parse().ok());
        Ok(term.filter(|_| leader.is_some() && leader == me))
    }

    /// With a password there are users: the test's has every key.
    async fn prepare(&self, address: &str, login: &Login) -> io::Result<()> {
        let (Some(user), Some(password)) = (&login.user, &login.password) else {
            return Ok(());
        };
        let role = "everything";
        // A zero byte in base64: from there to there is every key.
        let every = "AA==";
        let permission = json!({"permType": "READWRITE", "key": every, "range_end": every});
        for (path, body) in [
            ("user/add", json!({"name": ROOT.0, "password": ROOT.1})),
            ("role/add", json!({"name": ROOT.0})),
            ("user/grant", json!({"user": ROOT.0, "role": ROOT.0})),
            ("user/add", json!({"name": user, "password": password})),
            ("role/add", json!({"name": role})),
            ("role/grant", json!({"name": role, "perm": permission})),
            ("user/grant", json!({"user": user, "role": role})),
            ("enable", json!({})),
        ] {
            http::post(address, &format!("/v3/auth/{path}"), &body.to_string()).await?;
        }
        Ok(())
    }
}

impl Etcd {
    fn recipe(&self, program: &str, place: &Place<'_>) -> Recipe {
        let url = |scheme: &str, host: &str, port: u16| format!("{scheme}://{host}:{port}");
        let mut listen = url("http", place.bind, place.ports.plain);
        let mut advertise = url("http", "127.0.0.1", place.outside.plain);
        // One alone talks to nobody, but the flags want a port: any.
        let peers = match place.member {
            Some(member) => member.nodes.iter().map(|node| node.peer).collect(),
            None => vec![0],
        };
        let me = place.member.map_or(0, |member| member.me);
        let peers: Vec<_> = peers
            .into_iter()
            .map(|port| url("http", "127.0.0.1", port))
            .collect();
        let members = peers
            .iter()
            .enumerate()
            .map(|(node, peer)| format!("node{node}={peer}"));
        let cluster = members.collect::<Vec<_>>().join(",");
        let peer = peers.get(me).cloned().unwrap_or_default();
        let mut args = Vec::new();
        if let (true, Some(port), Some(outside)) = (place.tls, place.ports.tls, place.outside.tls) {
            listen = format!("{listen},{}", url("https", place.bind, port));
            advertise = format!("{advertise},{}", url("https", "127.0.0.1", outside));
            args.push(format!("--cert-file={}", place.file(tls::CERT)));
            args.push(format!("--key-file={}", place.file(tls::KEY)));
            if place.client_certificates {
                args.push("--client-cert-auth".into());
                args.push(format!("--trusted-ca-file={}", place.file(tls::CA)));
            }
        }
        let mut command = vec![
            program.to_owned(),
            format!("--name=node{me}"),
            format!("--data-dir={}", place.data),
            format!("--listen-client-urls={listen}"),
            format!("--advertise-client-urls={advertise}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={cluster}"),
            "--logger=zap".into(),
            "--log-level=warn".into(),
        ];
        command.extend(args);
        command.extend_from_slice(place.extra);
        Recipe {
            command,
            ..Recipe::default()
        }
    }
}

pub(super) fn json_of(text: &str) -> io::Result<Value> {
    serde_json::from_str(text).map_err(|_| io::Error::other(format!("no JSON: {text}")))
}
