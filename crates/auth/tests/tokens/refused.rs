//! That the attacks come to nothing, and what is told of them.

use serde_json::json;
use tailwater_protocol::ProjectId;

use crate::{
    attacks::attacks,
    forge::{NOW, claims, claims_with, hs_header, hs256},
    judged::{PROJECTS, asked, moment},
};

#[test]
fn no_attack_gets_in_and_each_is_refused_for_what_it_is() {
    let attacks: Vec<_> = attacks().into_iter().flat_map(|(_, attacks)| attacks).collect();
    assert!(attacks.len() >= 100, "{}", attacks.len());
    for (attack, project, token, act, (status, name)) in attacks {
        let answer = asked(project, &token, act);
        assert_eq!((answer.0, answer.1.as_str()), (status, name), "{attack}");
        // Of a public algorithm it is asked for again, in case the first answer was remembered.
        assert_eq!(asked(project, &token, act), answer, "{attack}, again");
    }
}

#[test]
fn what_is_refused_is_not_repeated() {
    let secret = "hunter2";
    let tokens = [
        hs256(&hs_header(), &claims_with(&json!({"aud": secret}))),
        hs256(&hs_header(), &claims_with(&json!({"sub": secret}))),
        hs256(&hs_header(), &claims_with(&json!({"streams": [format!("{secret}*x")]}))),
        hs256(&json!({"alg": secret}), &claims()),
        hs256(&json!({"alg": "HS256", "kid": format!("{secret}/")}), &claims()),
        secret.to_owned(),
    ];
    for token in tokens {
        let error = PROJECTS.verify(&ProjectId::parse("chat").unwrap(), &token, moment(NOW)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}
