//! Variables of the environment that belong to others: how to reach a bucket, and where managed S2 is. They are read under
//! the names that the tools of AWS and of S2 give them, so that what is set for these holds here, too. No flag and no
//! file names the same, and none is looked at before a setting asks for its store.
//!
//! Sources: the AWS SDKs and Tools Reference Guide (environment variables, service-specific endpoints), and the
//! environment variables of S2's SDKs. A variable that is empty counts as not set, as it does there.

use std::collections::BTreeMap;

use tailwater_s2::{BucketConfig, Endpoint, Secret};

use crate::config::{ConfigError, refused, without_user};

const REGION: &str = "AWS_REGION";
const DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";
const ENDPOINT_S3: &str = "AWS_ENDPOINT_URL_S3";
const ENDPOINT: &str = "AWS_ENDPOINT_URL";
const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
const S2_ACCOUNT: &str = "S2_ACCOUNT_ENDPOINT";
const S2_BASIN: &str = "S2_BASIN_ENDPOINT";

/// The variables that are known here, as far as they are set.
#[derive(Default)]
pub(crate) struct Foreign {
    region: Option<String>,
    endpoint: Option<Url>,
    access_key: Option<String>,
    secret_key: Option<Secret>,
    session_token: Option<Secret>,
    s2_account: Option<String>,
    s2_basin: Option<String>,
}

/// An endpoint, and the variable that names it.
struct Url {
    variable: &'static str,
    url: String,
}

impl Foreign {
    /// Picks them from the environment.
    pub(crate) fn pick(env: &BTreeMap<String, String>) -> Self {
        let get = |variable: &str| env.get(variable).filter(|text| !text.is_empty()).cloned();
        let url = |variable| get(variable).map(|url| Url { variable, url });
        Self {
            region: get(REGION).or_else(|| get(DEFAULT_REGION)),
            endpoint: url(ENDPOINT_S3).or_else(|| url(ENDPOINT)),
            access_key: get(ACCESS_KEY),
            secret_key: get(SECRET_KEY).map(Secret::from),
            session_token: get(SESSION_TOKEN).map(Secret::from),
            s2_account: get(S2_ACCOUNT),
            s2_basin: get(S2_BASIN),
        }
    }

    /// How to reach a bucket.
    ///
    /// # Errors
    /// When a variable is missing or cannot be meant.
    pub(crate) fn bucket(&self, bucket: &str, prefix: &str) -> Result<BucketConfig, ConfigError> {
        if bucket.is_empty() {
            return Err(refused("bucket", &"is empty"));
        }
        let missing = format!("is not set, nor is {DEFAULT_REGION}, and a bucket has a region");
        let region = self.region.clone().ok_or_else(|| refused(REGION, &missing))?;
        let plain = |url: &str| url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let tls = |url: &str| url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if let Some(Url { variable, url }) = self.endpoint.as_ref().filter(|e| !plain(&e.url) && !tls(&e.url)) {
            return Err(refused(variable, &format!("`{}` is no http or https URL", without_user(url))));
        }
        match (&self.access_key, &self.secret_key) {
            (Some(_), None) => return Err(refused(SECRET_KEY, &format!("is not set, but {ACCESS_KEY} is"))),
            (None, Some(_)) => return Err(refused(ACCESS_KEY, &format!("is not set, but {SECRET_KEY} is"))),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.url.clone());
        Ok(BucketConfig {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region,
            allow_http: endpoint.as_deref().is_some_and(plain),
            endpoint,
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
            session_token: self.session_token.clone(),
        })
    }

    /// Where managed S2 is.
    ///
    /// # Errors
    /// When only one half of where it is is given.
    pub(crate) fn cloud(&self) -> Result<Endpoint, ConfigError> {
        match (&self.s2_account, &self.s2_basin) {
            (None, None) => Ok(Endpoint::Cloud),
            (Some(account), Some(basin)) => Ok(Endpoint::Domains { account: account.clone(), basin: basin.clone() }),
            (Some(_), None) => Err(refused(S2_BASIN, &format!("is not set, but {S2_ACCOUNT} is"))),
            (None, Some(_)) => Err(refused(S2_ACCOUNT, &format!("is not set, but {S2_BASIN} is"))),
        }
    }
}

/// What `--print-config` shows of a bucket beyond the settings: comments, since no file can set them.
pub(crate) fn shown_of_bucket(config: &BucketConfig) -> String {
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|_| "(not shown)".to_owned());
    comments(&[
        (REGION, Some(config.region.clone())),
        (ENDPOINT_S3, config.endpoint.as_deref().map(without_user)),
        (ACCESS_KEY, config.access_key.clone()),
        (SECRET_KEY, secret(&config.secret_key)),
        (SESSION_TOKEN, secret(&config.session_token)),
    ])
}

/// What `--print-config` shows of where managed S2 is.
pub(crate) fn shown_of_cloud(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Domains { account, basin } => {
            comments(&[(S2_ACCOUNT, Some(without_user(account))), (S2_BASIN, Some(without_user(basin)))])
        }
        Endpoint::Cloud | Endpoint::Url(_) => String::new(),
    }
}

fn comments(variables: &[(&str, Option<String>)]) -> String {
    let set = variables.iter().filter_map(|(variable, value)| Some((variable, value.as_deref()?)));
    set.fold("\n# From the environment:\n".to_owned(), |text, (variable, value)| {
        // A line break would end the comment.
        text + &format!("# {variable} = {}\n", value.escape_debug())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(env: &[(&str, &str)]) -> Foreign {
        Foreign::pick(&env.iter().map(|(variable, text)| ((*variable).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn the_more_special_variable_wins() {
        let env = [
            (REGION, "eu-north-1"),
            (DEFAULT_REGION, "us-east-1"),
            (ENDPOINT_S3, "http://127.0.0.1:9000"),
            (ENDPOINT, "https://all.example"),
        ];
        let bucket = foreign(&env).bucket("b", "p").unwrap();
        assert_eq!((bucket.bucket.as_str(), bucket.prefix.as_str()), ("b", "p"));
        assert_eq!((bucket.region.as_str(), bucket.endpoint.as_deref()), ("eu-north-1", Some("http://127.0.0.1:9000")));
        assert!(bucket.allow_http);
        let bucket = foreign(&[(REGION, ""), env[1], env[3]]).bucket("b", "").unwrap();
        assert_eq!((bucket.region.as_str(), bucket.endpoint.as_deref()), ("us-east-1", Some("https://all.example")));
        assert!(!bucket.allow_http);
    }

    #[test]
    fn what_is_missing_is_named() {
        let region = (REGION, "eu-north-1");
        let table: [(&[(&str, &str)], &str); 4] = [
            (&[], REGION),
            (&[region, (ACCESS_KEY, "id")], SECRET_KEY),
            (&[region, (SECRET_KEY, "hunter2")], ACCESS_KEY),
            (&[region, (ENDPOINT, "s3.example:9000")], ENDPOINT),
        ];
        for (env, variable) in table {
            let fault = foreign(env).bucket("b", "").unwrap_err().to_string();
            assert!(fault.starts_with(variable) && !fault.contains("hunter2"), "{fault}");
        }
        assert!(foreign(&[region]).bucket("", "").unwrap_err().to_string().starts_with("bucket: "));
    }

    #[test]
    fn the_role_of_the_machine_needs_no_keys() {
        let bucket = foreign(&[(DEFAULT_REGION, "eu-north-1")]).bucket("b", "").unwrap();
        assert_eq!((bucket.endpoint, bucket.access_key, bucket.secret_key), (None, None, None));
    }

    #[test]
    fn managed_s2_is_at_home_or_at_two_addresses() {
        let (account, basin) = ((S2_ACCOUNT, "https://a.example"), (S2_BASIN, "https://{basin}.b.example"));
        assert_eq!(foreign(&[]).cloud().unwrap(), Endpoint::Cloud);
        let domains = Endpoint::Domains { account: account.1.into(), basin: basin.1.into() };
        assert_eq!(foreign(&[account, basin]).cloud().unwrap(), domains);
        assert!(foreign(&[account]).cloud().unwrap_err().to_string().starts_with(S2_BASIN));
        assert!(foreign(&[basin]).cloud().unwrap_err().to_string().starts_with(S2_ACCOUNT));
        assert!(shown_of_cloud(&domains).contains("# S2_BASIN_ENDPOINT = https://{basin}.b.example\n"));
    }

    #[test]
    fn what_is_shown_is_comments_without_secrets() {
        let env = [
            (REGION, "eu\nmemory = true"),
            (ENDPOINT_S3, "https://user:hunter2@s3.example"),
            (ACCESS_KEY, "id"),
            (SECRET_KEY, "hunter2"),
            (SESSION_TOKEN, "hunter2"),
        ];
        let shown = shown_of_bucket(&foreign(&env).bucket("b", "").unwrap());
        assert!(shown.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{shown}");
        assert!(shown.contains("https://s3.example\n") && !shown.contains("hunter2"), "{shown}");
    }
}
