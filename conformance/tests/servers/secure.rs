//! TLS, passwords and client certificates of the servers that are not Redis.

use leasehold_conformance::servers::{ServerError, ServerKind, ServerRequest};

use crate::{ask, planned};

#[tokio::test]
async fn those_with_a_port_for_tls_speak_it_there() {
    for target in planned() {
        if ![ServerKind::Etcd, ServerKind::ZooKeeper].contains(&target.kind) {
            continue;
        }
        let server = target.request().client_certificates().start().await.unwrap();
        println!("{server:?} {}", server.url());
        let (_, address) = server.url().rsplit_once('/').unwrap();
        assert_ne!(address, server.address());
        assert!(ask::speaks_tls(address).await);
        ask::is_well(target.kind, server.address()).await.unwrap();
        let (cert, key) = server.client_certificate().unwrap();
        assert!(cert.contains("BEGIN CERTIFICATE") && key.contains("PRIVATE KEY"));
    }
}

#[tokio::test]
async fn those_without_one_have_it_at_their_only_port() {
    for target in planned() {
        let sql = [ServerKind::MySql, ServerKind::MariaDb, ServerKind::Postgres];
        if !sql.contains(&target.kind) {
            continue;
        }
        let server = target
            .request()
            .tls()
            .password("it's a \\ b@c")
            .start()
            .await
            .unwrap();
        println!("{server:?}");
        ask::is_well(target.kind, server.address()).await.unwrap();
        let user = "://leasehold:it%27s%20a%20%5C%20b%40c@127.0.0.1:";
        assert!(server.url().contains(user), "{}", server.url());
        assert!(
            ["mysqls:", "?sslmode=require"]
                .iter()
                .any(|tls| server.url().contains(tls))
        );
        assert!(server.admin_url().contains("://leasehold_admin:"));
    }
}

#[tokio::test]
async fn etcd_has_users_when_it_has_a_password() {
    for target in planned()
        .into_iter()
        .filter(|target| target.kind == ServerKind::Etcd)
    {
        let server = target.request().password("p").start().await.unwrap();
        println!("{server:?}");
        ask::is_well(target.kind, server.address()).await.unwrap();
        let denied = ask::etcd(server.address(), "kv/range", r#"{"key": "AA=="}"#, "}")
            .await
            .unwrap();
        assert!(denied.contains("user name is empty"), "{denied}");
        assert!(server.url().contains("leasehold:p@"));
        assert!(server.admin_url().contains("root:leasehold-root@"));
        server.restart().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_kind_cannot_be_is_refused() {
    let request = ServerRequest::new(ServerKind::MySql).client_certificates();
    let error = request.start().await.unwrap_err();
    assert!(matches!(error, ServerError::Unsupported { .. }), "{error}");
}
