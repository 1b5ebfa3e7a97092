use super::*;
use crate::{document::File, projects::Projects};

const FILE: &str = "# who may come in
[[project]]
id = 'a' # the first
visibility = 'public'

# since spring
[[project.key]]
id = 'old'
algorithm = 'HS256'
secret = 'the secret of a, which is long enough'

[[project]]
id = 'b'
[[project.key]]
id = 'of-b'
algorithm = 'HS256'
secret = 'the secret of b, which is long enough'
[[project.key]]
algorithm = 'HS256'
secret = 'another one of b, which is long enough'
";

fn id(text: &str) -> KeyId {
    KeyId::parse(text).unwrap()
}

fn project(text: &str) -> ProjectId {
    ProjectId::parse(text).unwrap()
}

fn added(name: &str, signs: bool) -> Rekeyed {
    let secret = Zeroizing::new(format!("the secret of {name}, which is long enough"));
    Rekeyed::Added { id: id(name), key: NewKey::Secret(secret), signs }
}

/// The ids of a project's keys, as the gateway would read them.
fn ids(text: &str, of: &str) -> Vec<String> {
    let projects = Projects::parse([File { name: "p.toml", bytes: text.as_bytes() }]).unwrap();
    let keys = projects.get(&project(of)).unwrap().keys.clone();
    keys.iter().map(|key| key.id().map_or("-", KeyId::as_str).to_owned()).collect()
}

#[test]
fn a_key_is_rotated_and_nothing_else_is_touched() {
    let a = project("a");
    let text = rekey(FILE, &a, &added("new", false)).unwrap();
    assert_eq!((ids(&text, "a"), ids(&text, "b")), (vec!["old".into(), "new".into()], vec!["of-b".into(), "-".into()]));
    let text = rekey(&text, &a, &Rekeyed::Promoted(id("new"))).unwrap();
    assert_eq!(ids(&text, "a"), ["new", "old"]);
    let text = rekey(&text, &a, &Rekeyed::Removed(id("old"))).unwrap();
    assert_eq!((ids(&text, "a"), ids(&text, "b")), (vec!["new".into()], vec!["of-b".into(), "-".into()]));
    for kept in ["# who may come in\n", "id = 'a' # the first\n", "visibility = 'public'\n", "id = 'b'\n"] {
        assert!(text.contains(kept), "{kept} {}", *text);
    }
    let signing = rekey(FILE, &project("b"), &added("new", true)).unwrap();
    assert_eq!(
        (ids(&signing, "b"), ids(&signing, "a")),
        (vec!["new".into(), "of-b".into(), "-".into()], vec!["old".into()])
    );
}

#[test]
fn what_breaks_the_rules_of_keys_is_not_done() {
    let a = project("a");
    let fault = |text: &str, change: &Rekeyed| rekey(text, &a, change).unwrap_err();
    assert_eq!(fault(FILE, &Rekeyed::Removed(id("old"))), KeysError::Last.into());
    assert_eq!(fault(FILE, &Rekeyed::Removed(id("of-b"))), KeysError::Unknown { id: id("of-b") }.into());
    assert_eq!(fault(FILE, &Rekeyed::Promoted(id("new"))), KeysError::Unknown { id: id("new") }.into());
    assert_eq!(fault(FILE, &added("old", true)), KeysError::Repeated { id: id("old") }.into());
    let full = (1..MAX_KEYS)
        .fold(FILE.to_owned(), |text, n| rekey(&text, &a, &added(&n.to_string(), n % 2 == 0)).unwrap().to_string());
    assert_eq!(ids(&full, "a").len(), MAX_KEYS);
    assert_eq!(fault(&full, &added("more", false)), KeysError::TooMany.into());
}

#[test]
fn what_is_not_there_or_written_in_another_way_is_told() {
    let change = added("new", false);
    assert_eq!(rekey(FILE, &project("c"), &change).unwrap_err(), RekeyError::NoProject(project("c")));
    assert!(holds(FILE, &project("a")) && !holds(FILE, &project("c")) && !holds("x = = 1", &project("a")));
    let inline = "[[project]]\nid = 'a'\nkey = [{ id = 'old', algorithm = 'HS256', secret = 'hunter2' }]\n";
    assert_eq!(rekey(inline, &project("a"), &change).unwrap_err(), RekeyError::OtherForm);
    let error = rekey("secret = 'hunter2", &project("a"), &change).unwrap_err();
    assert!(!format!("{error} {error:?} {change:?}").contains("hunter2"));
    assert!(!format!("{change:?}").contains("the secret"));
}

#[test]
fn a_public_key_is_for_what_it_is() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = NewKey::public(&pair.public_key_pem()).unwrap();
    let text = rekey(FILE, &project("a"), &Rekeyed::Added { id: id("public"), key, signs: false }).unwrap();
    assert!(text.contains("algorithm = \"ES256\""), "{}", *text);
    assert_eq!(ids(&text, "a"), ["old", "public"]);
    assert!(NewKey::public(&pair.serialize_pem()).is_none() && NewKey::public("junk").is_none());
}

#[test]
fn a_project_whose_issuer_has_keys_may_have_none_of_its_own() {
    let file = "[[project]]
id = 'a'
issuer = 'https://login.example'

[project.jwks] # the issuer's
url = 'https://login.example/keys'

[[project]]
id = 'b'
[[project.key]]
id = 'of-b'
algorithm = 'HS256'
secret = 'the secret of b, which is long enough'
";
    let a = project("a");
    assert!(holds(file, &a) && ids(file, "a").is_empty());
    let one = rekey(file, &a, &added("one", true)).unwrap();
    let two = rekey(&one, &a, &added("two", false)).unwrap();
    assert_eq!((ids(&one, "a"), ids(&two, "a")), (vec!["one".to_owned()], vec!["one".into(), "two".into()]));
    assert_eq!(ids(&two, "b"), ["of-b"]);
    let one = rekey(&two, &a, &Rekeyed::Removed(id("two"))).unwrap();
    let none = rekey(&one, &a, &Rekeyed::Removed(id("one"))).unwrap();
    assert!(ids(&none, "a").is_empty() && none.contains("# the issuer's"), "{}", *none);
    assert_eq!(rekey(file, &project("b"), &Rekeyed::Removed(id("of-b"))).unwrap_err(), KeysError::Last.into());
    assert!(matches!(rekey(file, &a, &Rekeyed::Removed(id("one"))), Err(RekeyError::Keys(KeysError::Unknown { .. }))));
}
