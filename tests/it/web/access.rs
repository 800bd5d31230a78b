//! Who may send requests, under which host name, and from which page.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use dcmdex::access::jwt::{Issuer, TokenCheck};
use dcmdex::access::users::{line_with_password, line_with_token};
use dcmdex::web::METHODS_OF_RESOURCES;

use super::*;

fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64.encode(credentials.as_bytes()))
}

#[test]
fn without_users_this_machine_may_ask() {
    let web = TestWeb::start();
    web.get("/studies").expect(200);
    let health = http::request(web.address, "GET", "/healthz", &[], b"").expect(200);
    assert_eq!(health.text(), "ok\n");
}

#[test]
fn every_resource_but_health_needs_credentials_where_there_are_users() {
    let users = line_with_password("anna", Rights::READ, "secret").unwrap();
    let web = TestWeb::with(&archive(), |_| {}, Some(&users));
    for resource in METHODS_OF_RESOURCES.iter() {
        let path = resource.template.replace(['{', '}', '*'], "");
        for method in resource.methods.iter().chain(&["HEAD", "OPTIONS"]) {
            for wrong in
                [vec![], vec![("Authorization", basic("anna:wrong"))], vec![("Authorization", "Bearer x".into())]]
            {
                let headers: Vec<_> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let status = http::request(web.address, method, &path, &headers, b"").status;
                let expected = if resource.is_open { status != 401 } else { status == 401 };
                assert!(expected, "{method} {path}: {status}");
            }
        }
    }
    let unknown = http::request(web.address, "GET", "/nowhere", &[], b"").expect(401);
    assert_eq!(unknown.header("www-authenticate"), "Basic realm=\"dcmdex\", charset=\"UTF-8\"");
}

#[test]
fn a_password_and_a_token_open_what_they_are_for() {
    let (token, of_token) = line_with_token("viewer", Rights::READ).unwrap();
    let storer = Rights { read: false, store: true };
    let users = [
        line_with_password("anna", Rights::READ, "se:cret \u{e9}").unwrap(),
        line_with_password("ct1", storer, "other").unwrap(),
        of_token,
    ];
    let web = TestWeb::with(&archive(), |_| {}, Some(&users.join("\n")));
    let ask = |credentials: &str| web.get_with("/studies", &[("Authorization", credentials)]).status;
    for _ in 0..2 {
        assert_eq!(ask(&basic("anna:se:cret \u{e9}")), 200);
        assert_eq!(ask(&basic("anna:se:cret")), 401);
        assert_eq!(ask(&basic("ct1:other")), 403);
        assert_eq!(ask(&format!("bearer {token}")), 200);
    }
    for bad in ["", "Basic", "Basic !!!", "Bearer", "Digest x", &basic("anna"), &format!("Bearer {}", "x".repeat(4000))]
    {
        assert_eq!(ask(bad), 401, "{bad}");
    }
}

#[test]
fn users_that_were_taken_out_are_out_at_once() {
    let anna = line_with_password("anna", Rights::READ, "secret").unwrap();
    let bob = line_with_password("bob", Rights::READ, "secret").unwrap();
    let web = TestWeb::with(&archive(), |_| {}, Some(&anna));
    let ask = |name: &str| web.get_with("/studies", &[("Authorization", &basic(&format!("{name}:secret")))]).status;
    assert_eq!((ask("anna"), ask("bob")), (200, 401));
    web.users.replace(Users::parse(&bob).unwrap());
    assert_eq!((ask("anna"), ask("bob")), (401, 200));
}

#[test]
fn only_a_trusted_proxy_names_users() {
    let users = "anna read proxy\n";
    let header = [("Remote-User", "anna")];
    let trusting = |proxy: [u8; 4]| {
        let change = move |options: &mut Options| {
            options.user_header = Some("remote-user".into());
            options.trusted_proxies = vec![proxy.into()];
        };
        TestWeb::with(&archive(), change, Some(users))
    };
    let trusted = trusting([127, 0, 0, 1]);
    trusted.get_with("/studies", &header).expect(200);
    trusted.get_with("/studies", &[("Remote-User", "bob")]).expect(401);
    trusted.get_with("/studies", &[("Remote-User", "anna"), ("Remote-User", "anna")]).expect(401);
    trusted.get("/studies").expect(401);
    trusting([10, 0, 0, 1]).get_with("/studies", &header).expect(401);
}

/// An identity provider: its key, and the file that it publishes.
struct Provider {
    key: ring::signature::EcdsaKeyPair,
    directory: TempDir,
}

impl Provider {
    fn new() -> Self {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        let keys = serde_json::json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] });
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("keys.json"), keys.to_string()).unwrap();
        Self { key, directory }
    }

    fn check(&self) -> TokenCheck {
        let issuer = Issuer {
            issuer: "https://login.example".into(),
            audiences: vec!["dcmdex".into()],
            keys: self.directory.path().join("keys.json"),
            algorithms: vec!["ES256".into()],
            claim: "roles".into(),
            read_roles: ["radiologist".to_owned()].into(),
            store_roles: ["modality".to_owned()].into(),
            leeway: Duration::ZERO,
        };
        TokenCheck::new(issuer).unwrap()
    }

    fn token(&self, role: &str, audience: &str) -> String {
        let exp = jsonwebtoken::get_current_timestamp() + 3_600;
        let claims =
            serde_json::json!({ "iss": "https://login.example", "aud": audience, "exp": exp, "roles": [role] });
        let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let message = format!("{}.{}", encode(r#"{"alg":"ES256"}"#), encode(&claims.to_string()));
        let signed = self.key.sign(&ring::rand::SystemRandom::new(), message.as_bytes()).unwrap();
        format!("Bearer {message}.{}", BASE64URL_NOPAD.encode(signed.as_ref()))
    }
}

#[test]
fn a_token_of_an_identity_provider_gives_the_rights_of_its_roles() {
    let provider = Provider::new();
    let (own_token, line) = line_with_token("viewer", Rights::READ).unwrap();
    for users in [None, Some(Users::parse(&line).unwrap())] {
        let has_users = users.is_some();
        let shared = SharedUsers::new(users, Some(provider.check())).unwrap();
        let web = TestWeb::with_services(&archive(), |_| {}, None, |services| services.users = shared);
        let ask = |credentials: &str| web.get_with("/studies", &[("Authorization", credentials)]).status;
        assert_eq!(ask(&provider.token("radiologist", "dcmdex")), 200);
        assert_eq!(ask(&provider.token("modality", "dcmdex")), 403);
        assert_eq!(ask(&provider.token("visitor", "dcmdex")), 403);
        assert_eq!(ask(&provider.token("radiologist", "other")), 401);
        assert_eq!(ask(&Provider::new().token("radiologist", "dcmdex")), 401);
        assert_eq!(ask(&format!("Bearer {own_token}")), if has_users { 200 } else { 401 });
        let challenge = web.get("/studies").expect(401).header("www-authenticate");
        assert_eq!(challenge, "Bearer realm=\"dcmdex\"");
        let post = |credentials: &str| {
            let headers = [("Authorization", credentials), ("Content-Type", "application/dicom")];
            http::request(web.address, "POST", "/dicom-web/studies", &headers, b"x").status
        };
        assert_eq!(post(&provider.token("radiologist", "dcmdex")), 403);
        // Without a storage, but allowed to.
        assert_eq!(post(&provider.token("modality", "dcmdex")), 503);
    }
}

#[test]
fn a_strange_name_or_page_is_refused_before_anything_else() {
    let web = TestWeb::start();
    for path in ["/studies", "/nowhere"] {
        web.get_with(path, &[("Host", "evil.example")]).expect(421);
        web.get_with(path, &[("Origin", "http://evil.example")]).expect(403);
        web.get_with(path, &[("Origin", "null")]).expect(403);
    }
    web.get_with("/studies", &[("Origin", &format!("http://{}", web.address))]).expect(200);
    let form = [("Origin", "http://evil.example"), ("Content-Type", "multipart/form-data; boundary=x")];
    http::request(web.address, "POST", "/dicom-web/studies", &form, b"x").expect(403);
}

#[test]
fn a_listed_origin_may_read_answers_and_errors() {
    let listed = |options: &mut Options| options.cors_origins = vec!["https://viewer.example".into()];
    let users = line_with_password("anna", Rights::READ, "secret").unwrap();
    let web = TestWeb::with(&archive(), listed, Some(&users));
    let origin = ("Origin", "https://viewer.example");
    let refused = web.get_with("/studies", &[origin]).expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), "https://viewer.example");
    let preflight =
        [origin, ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "authorization")];
    let answer = http::request(web.address, "OPTIONS", "/dicom-web/studies", &preflight, b"").expect(204);
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    let answer = web.get_with("/studies", &[origin, ("Authorization", &basic("anna:secret"))]).expect(200);
    assert!(answer.header("vary").contains("origin"));
    assert!(answer.header("access-control-expose-headers").contains("warning"));
}

#[test]
fn urls_are_those_that_clients_know() {
    let url = |web: &TestWeb, headers: &[(&str, &str)]| {
        value(&web.get_with("/studies?limit=1", headers).json()[0], "00081190").as_str().unwrap().to_owned()
    };
    let public = |options: &mut Options| options.public_url = Some("https://pacs.example.org/".parse().unwrap());
    let web = TestWeb::with(&archive(), public, None);
    assert!(url(&web, &[]).starts_with("https://pacs.example.org/dicom-web/studies/"));
    let forwarded = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "viewer.example")];
    let trusted = |options: &mut Options| options.trusted_proxies = vec![[127, 0, 0, 1].into()];
    let web = TestWeb::with(&archive(), trusted, None);
    assert!(url(&web, &forwarded).starts_with("https://viewer.example/dicom-web/"));
    assert!(url(&TestWeb::start(), &forwarded).starts_with("http://127.0.0.1:"));
    // RFC 7239.
    let standard = [("Forwarded", "for=192.0.2.1;proto=https;host=\"viewer.example:8443\", for=127.0.0.1")];
    assert!(url(&web, &standard).starts_with("https://viewer.example:8443/dicom-web/"));
    assert!(url(&TestWeb::start(), &standard).starts_with("http://127.0.0.1:"));
}

#[test]
fn methods_and_the_service_are_described() {
    let web = TestWeb::start();
    let refused = http::request(web.address, "DELETE", "/dicom-web/studies", &[], b"").expect(405);
    assert_eq!(refused.header("allow"), "GET, POST, HEAD, OPTIONS");
    let options = http::request(web.address, "OPTIONS", "/dicom-web/studies", &[], b"").expect(204);
    assert_eq!(options.header("allow"), "GET, POST, HEAD, OPTIONS");
    let wadl = http::request(web.address, "OPTIONS", "/dicom-web/", &[], b"").expect(200);
    assert!(wadl.header("content-type").contains("wadl") && wadl.text().contains("path=\"studies/{study}/series\""));
    let json = [("Accept", "application/json")];
    let json = http::request(web.address, "OPTIONS", "/dicom-web", &json, b"").expect(200).json();
    assert!(json["resources"].as_array().unwrap().iter().any(|resource| resource["path"] == "studies"));
    let head = http::request(web.address, "HEAD", "/dicom-web/", &[], b"").expect(200);
    assert!(head.body.is_empty());
    let metrics = http::request(web.address, "GET", "/metrics", &[], b"").expect(200);
    assert!(metrics.text().contains("\ndcmdex_http_requests_total{result=\"answered\"} "));
}

#[test]
fn answers_tell_browsers_to_keep_out() {
    let web = TestWeb::start();
    for answer in [web.get("/studies"), web.get("/nowhere")] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    }
}
