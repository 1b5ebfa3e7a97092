//! Quotas at the door: what each project, and each principal of it, has used on this pod, and what an answer says of it
//! (draft-ietf-httpapi-ratelimit-headers-11; the accounts themselves are `tailwater_auth::quota`).
//!
//! A request is charged once, when it is known that it may be asked: a token that does not count, and who may read what is
//! public only and asks for something else, cost nobody's quota and are told of none. Who is refused a live response's place
//! is given back what was charged. What a body turns out to hold beyond the length that it declared, and what an answer
//! holds, is owed: the next ones wait for it. Of Server-Sent Events only what a reader is sent while it is behind is counted,
//! all bytes of the events, and owed when the response ends; nothing is done for each delivery to who is not.
//!
//! A project without quotas has no account, and takes no lock here.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request::Parts};
use http_body::Body as _;
use tailwater_auth::{
    Asker, Cost, Exceeded, Grant, Meter, Principal, Project, Projects, Quotas,
    quota::{Allowance, Fields, Held, Left},
};
use tailwater_protocol::{ProjectId, ReadMode, ReadQuery, headers};
use tokio::time::Instant;

use crate::{
    admission::Peer,
    answer,
    app::App,
    body::{BodyError, Received},
    client_address::Client,
    event_source::Refused,
    guard::Auth,
    metrics::Metrics,
    permit::Permit,
    problem::Problem,
    request,
    routes::Observed,
    share::{Entered, Shared, Usage, Using},
};

/// Over how long those come back who were refused at the same time.
pub(crate) const SPREAD: Duration = Duration::from_secs(5);

/// What is charged where it is not known how many bytes it will be: enough to wait while others are owed.
const SOME: u64 = 1;

/// All accounts of this pod; a cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Metering(Arc<Books>);

#[derive(Debug)]
struct Books {
    began: Instant,
    kept: Mutex<Kept>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Kept {
    meter: Meter,
    /// The projects of which accounts were kept last. They are not kept alive: they hold secrets.
    of: Weak<Projects>,
}

/// Whose quotas a request is for, as they were when it came.
#[derive(Debug)]
pub(crate) struct Payer {
    metering: Metering,
    project: ProjectId,
    principal: Principal,
    quotas: Quotas,
}

/// Where whoever finishes an answer finds who pays for it, once that is somebody.
pub(crate) type Paid = Arc<OnceLock<Arc<Payer>>>;

/// A guarded request, as quotas and shares see it.
#[derive(Debug)]
pub(crate) struct Asking {
    payer: Option<Arc<Payer>>,
    usage: Arc<Usage>,
    entered: Weak<Entered>,
    cost: Cost,
    paid: Option<Paid>,
    /// Whether its live response has a connection to itself.
    has_connection: bool,
}

/// What a live response holds of what its project and its principal may have, and of what projects share. It is given back
/// when this goes, however the response has ended.
#[derive(Debug)]
pub(crate) struct Attendance {
    place: Option<(Arc<Payer>, Option<Held>)>,
    _connection: Option<Using>,
    /// Bytes of the events that it was sent while it was behind.
    replayed: u64,
}

impl Metering {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Books { began: Instant::now(), kept: Mutex::default(), metrics: metrics.clone() }))
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here can panic half way.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets projects that are gone, or have no quotas any more, once for each time that the projects in force have changed.
    fn keep_up_with(&mut self, projects: &Arc<Projects>) {
        if !std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(projects)) {
            self.of = Arc::downgrade(projects);
            self.meter.retain(|id| projects.get(id).is_some_and(|project| project.quotas != Quotas::default()));
        }
    }
}

impl Payer {
    /// Whoever asks; nobody where the project has no quotas.
    fn of(app: &App, id: &ProjectId, quotas: Quotas, who: impl FnOnce() -> Principal) -> Option<Arc<Self>> {
        if quotas == Quotas::default() {
            return None;
        }
        let principal = who();
        Some(Arc::new(Self { metering: app.metering.clone(), project: id.clone(), principal, quotas }))
    }

    /// Leaves word for whoever finishes the answer.
    fn bears(self: &Arc<Self>, paid: Option<&Paid>) {
        if let Some(paid) = paid {
            // It is charged once, so nobody was there before.
            drop(paid.set(Arc::clone(self)));
        }
    }

    fn asker(&self) -> Asker<'_> {
        Asker { project: &self.project, principal: self.principal, quotas: &self.quotas }
    }

    fn charge(&self, app: &App, projects: &Arc<Projects>, cost: Cost) -> Result<(), Problem> {
        let now = self.metering.now();
        let (refused, principals) = {
            let mut kept = self.metering.kept();
            kept.keep_up_with(projects);
            let charged = kept.meter.charge(&self.asker(), cost, now);
            let refused = charged.err().map(|exceeded| (exceeded, kept.meter.left(&self.asker(), now)));
            (refused, kept.meter.principals())
        };
        self.metering.0.metrics.quota_principals.set(i64::try_from(principals).unwrap_or(i64::MAX));
        refused.map_or(Ok(()), |(exceeded, left)| Err(self.refused(app, &exceeded, &left)))
    }

    /// Gives back what was charged for what was refused after all.
    fn give_back(&self, cost: Cost) {
        let now = self.metering.now();
        self.metering.kept().meter.give_back(&self.asker(), cost, now);
    }

    /// Takes the place of a live response for which this was charged.
    fn hold(self: &Arc<Self>, app: &App, stream: &str, cost: Cost) -> Result<Held, Problem> {
        let now = self.metering.now();
        let held = {
            let mut kept = self.metering.kept();
            let held = kept.meter.hold(&self.asker(), stream, now);
            held.map_err(|exceeded| {
                kept.meter.give_back(&self.asker(), cost, now);
                (exceeded, kept.meter.left(&self.asker(), now))
            })
        };
        held.map_err(|(exceeded, left)| self.refused(app, &exceeded, &left))
    }

    fn refused(&self, app: &App, exceeded: &Exceeded, left: &[Left]) -> Problem {
        self.metering.0.metrics.over_quota(exceeded.left.metered, exceeded.left.holder);
        let retry_after = exceeded.retry_after(SPREAD, app.ambient.share());
        let problem = Problem::quota_exceeded(exceeded, retry_after);
        match Fields::of(left, Some(exceeded)) {
            Some(fields) => problem.limited(&fields),
            None => problem,
        }
    }

    /// Counts bytes that were not known when they were asked for.
    fn owe(&self, bytes: u64) {
        if bytes > 0 && self.limits_bytes() {
            let now = self.metering.now();
            self.metering.kept().meter.owe(&self.asker(), Cost { bytes, ..Cost::default() }, now);
        }
    }

    fn limits_bytes(&self) -> bool {
        self.quotas.project.bytes.is_some() || self.quotas.principal.bytes.is_some()
    }

    /// Counts what an answer holds, and says in it what is left. Not in one that caches may give to others: what one asker
    /// has left is nobody else's business.
    pub(crate) fn answered(&self, method: &Method, response: &mut Response) {
        let holds = method == Method::GET && response.status() == StatusCode::OK && self.limits_bytes();
        let bytes = if holds { contents(response).saturating_sub(SOME) } else { 0 };
        let headers = response.headers_mut();
        let has_been_said = headers.contains_key(headers::RATELIMIT);
        let tells = !has_been_said && !answer::is_public(headers) && self.quotas.principal != Allowance::default();
        if bytes == 0 && !tells {
            return;
        }
        let now = self.metering.now();
        let left = {
            let mut kept = self.metering.kept();
            if bytes > 0 {
                kept.meter.owe(&self.asker(), Cost { bytes, ..Cost::default() }, now);
            }
            tells.then(|| kept.meter.left(&self.asker(), now))
        };
        if let Some(fields) = left.and_then(|left| Fields::of(&left, None)) {
            tell(headers, &fields);
        }
    }
}

/// Says what is left.
pub(crate) fn tell(headers: &mut HeaderMap, fields: &Fields) {
    let value = |text: &str| HeaderValue::from_str(text).expect("names and numbers are visible ASCII");
    headers.insert(headers::RATELIMIT_POLICY, value(&fields.policy));
    headers.insert(headers::RATELIMIT, value(&fields.limit));
}

/// How many bytes of a stream an answer holds. Events go on, and are counted otherwise: nobody knows how long they will be.
/// The content type tells nothing, as it is the stream's own.
fn contents(response: &Response) -> u64 {
    let is_refusal = response.extensions().get::<Refused>().is_some();
    if is_refusal { 0 } else { response.body().size_hint().exact().unwrap_or(0) }
}

impl Asking {
    /// Charges a request that may be asked.
    fn charge(&self, app: &App, projects: &Arc<Projects>) -> Result<(), Problem> {
        if let Some(entered) = self.entered.upgrade() {
            let used = app.admission.requests();
            if entered.begin(&self.usage).refused(used, app.config.max_requests, &app.metrics) {
                return Err(Problem::over_fair_share(Shared::Requests));
            }
        }
        let Some(payer) = &self.payer else { return Ok(()) };
        payer.bears(self.paid.as_ref());
        payer.charge(app, projects, self.cost)
    }

    /// Takes a live response's place; where there is none, gives back what was charged for it.
    fn attend(&self, app: &App, stream: &str) -> Result<Attendance, Problem> {
        let connection = self.has_connection.then(|| self.usage.begin(Shared::Connections));
        let (used, most) = (app.admission.connections(), app.config.max_connections);
        if connection.as_ref().is_some_and(|connection| connection.refused(used, most, &app.metrics)) {
            if let Some(payer) = &self.payer {
                payer.give_back(self.cost);
            }
            return Err(Problem::over_fair_share(Shared::Connections));
        }
        let place = match &self.payer {
            Some(payer) => Some((Arc::clone(payer), Some(payer.hold(app, stream, self.cost)?))),
            None => None,
        };
        Ok(Attendance { place, _connection: connection, replayed: 0 })
    }
}

impl Attendance {
    /// Counts events that it was sent while it was behind, which are owed when it ends.
    pub(crate) fn replayed(&mut self, bytes: usize) {
        self.replayed = self.replayed.saturating_add(bytes as u64);
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let Some((payer, held)) = &mut self.place else { return };
        payer.owe(self.replayed);
        if let Some(held) = held.take() {
            payer.metering.kept().meter.release(held);
        }
    }
}

impl Permit {
    /// Counts a request among those of its project, and charges it, if it is known that it may be asked; else that is done
    /// [when it is](Self::charge). What is given back is the request's part of what projects share, for as long as the HTTP
    /// library has to do with it.
    pub(crate) fn enter(
        &mut self,
        app: &App,
        request: &Parts,
        body: &Body,
        paid: Option<Paid>,
    ) -> Result<Option<Arc<Entered>>, Problem> {
        let (Some(terms), Auth::Required(guard)) = (&self.terms, &app.config.auth) else { return Ok(None) };
        let projects = guard.projects();
        let usage = app.shares.of(&terms.project, &projects);
        let entered = Arc::<Entered>::default();
        let payer = Payer::of(app, &terms.project, terms.quotas, || {
            terms.cookie.unwrap_or_else(|| principal(app, terms.grant.as_deref(), request))
        });
        let max_body = self.max_body().min(app.config.max_body);
        let cost = payer.as_ref().map_or_else(Cost::default, |_| cost_of(request, body, max_body));
        let has_connection = request.version < Version::HTTP_2;
        self.asking = Some(Asking { payer, usage, entered: Arc::downgrade(&entered), cost, paid, has_connection });
        if self.is_settled() {
            self.charge_by(app, &projects)?;
        }
        Ok(Some(entered))
    }

    /// Counts and charges the request, of which it is known now that it may be asked.
    pub(crate) fn charge(&self, app: &App) -> Result<(), Problem> {
        let Auth::Required(guard) = &app.config.auth else { return Ok(()) };
        self.charge_by(app, &guard.projects())
    }

    fn charge_by(&self, app: &App, projects: &Arc<Projects>) -> Result<(), Problem> {
        self.asking.as_ref().map_or(Ok(()), |asking| asking.charge(app, projects))
    }

    /// Takes the place of a live response; none where everybody may do everything.
    pub(crate) fn attend(&self, app: &App) -> Result<Option<Box<Attendance>>, Problem> {
        let Some(asking) = &self.asking else { return Ok(None) };
        asking.attend(app, &self.key.stream).map(|attendance| Some(Box::new(attendance)))
    }

    /// What its project uses of what all share; nothing where everybody may do everything.
    pub(crate) fn usage(&self) -> Option<&Arc<Usage>> {
        self.asking.as_ref().map(|asking| &asking.usage)
    }

    /// Counts a body, as far as it had not said how long it is. One that was too large has come as far as it might; what
    /// has come of one that breaks off nobody knows.
    pub(crate) fn received(&self, body: &Result<Received, BodyError>) {
        let bytes = match body {
            Ok(body) => body.bytes.len(),
            Err(BodyError::TooLarge { max }) => *max,
            Err(
                BodyError::Encoded
                | BodyError::TimedOut
                | BodyError::Broken
                | BodyError::OverBudget
                | BodyError::OverFairShare,
            ) => 0,
        };
        if let Some(Asking { payer: Some(payer), cost, .. }) = &self.asking {
            payer.owe((bytes as u64).saturating_sub(cost.bytes));
        }
    }
}

/// Charges somebody with a token for a request that is for no stream.
pub(crate) fn charge_bearer(
    app: &App,
    projects: &Arc<Projects>,
    project: &Project,
    grant: &Grant,
    request: &Parts,
) -> Result<(), Problem> {
    let who = || principal(app, Some(grant), request);
    let Some(payer) = Payer::of(app, &project.id, project.quotas, who) else { return Ok(()) };
    payer.bears(Observed::paid(&request.extensions).as_ref());
    payer.charge(app, projects, Cost { requests: 1, ..Cost::default() })
}

/// Who asks, unless a cookie says it.
fn principal(app: &App, grant: Option<&Grant>, request: &Parts) -> Principal {
    let token = || request::Fields(&request.headers).bearer().ok().flatten();
    match grant {
        Some(grant) => match (token(), &grant.id) {
            (Some(token), _) => Principal::of_bearer(grant, token),
            (None, Some(id)) => Principal::of_token_id(id),
            (None, None) => Principal::of_issue(grant.key, grant.issued_at),
        },
        None => {
            let peer = request.extensions.get::<Peer>().copied();
            let client = app.admission.client(peer, &request.headers);
            Principal::of_address(&client.map(Client::bytes).unwrap_or_default())
        }
    }
}

/// What a request costs. What it declares beyond what it may have is refused, and costs no more than that: a number is
/// written quickly.
fn cost_of(request: &Parts, body: &Body, max_body: usize) -> Cost {
    let reads = request.method == Method::GET;
    let declared = body.size_hint().exact().filter(|_| !reads).unwrap_or(SOME);
    let is_live = reads && request.uri.query().is_some_and(is_live);
    Cost { requests: 1, bytes: declared.min(max_body as u64), connections: u64::from(is_live) }
}

/// Whether a query asks for a live response. One that is malformed is refused before there is any.
fn is_live(query: &str) -> bool {
    ReadQuery::parse(Some(query), None).is_ok_and(|query| match query.mode {
        ReadMode::LongPoll | ReadMode::Sse => true,
        ReadMode::CatchUp => false,
    })
}

#[cfg(test)]
mod tests {
    use tailwater_auth::File;

    use super::*;

    fn projects(ids: &[&str]) -> Arc<Projects> {
        let secret = "hunter2".repeat(8);
        let table = |id: &&str| {
            let quota = "quota = { principal = { requests = { most = 9, within = 9 }, readers = 1 } }";
            format!("[[project]]\nid = '{id}'\n{quota}\n[[project.key]]\nalgorithm = 'HS256'\nsecret = '{secret}'\n")
        };
        let text: String = ids.iter().map(table).collect();
        Arc::new(Projects::parse([File { name: "projects.toml", bytes: text.as_bytes() }]).unwrap())
    }

    fn payer(metering: &Metering, projects: &Projects, id: &str) -> Payer {
        let project = projects.get(&ProjectId::parse(id).unwrap()).unwrap();
        let principal = Principal::of_token_id("a");
        Payer { metering: metering.clone(), project: project.id.clone(), principal, quotas: project.quotas }
    }

    fn metering() -> Metering {
        Metering::new(&Metrics::register(&prometheus::Registry::new()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_project_has_used_is_forgotten_with_it_but_not_while_its_readers_stay() {
        let (metering, before) = (metering(), projects(&["a", "b"]));
        metering.kept().keep_up_with(&before);
        let payers = ["a", "b"].map(|id| payer(&metering, &before, id));
        let [a, b] = &payers;
        for payer in &payers {
            metering
                .kept()
                .meter
                .charge(&payer.asker(), Cost { requests: 1, ..Cost::default() }, metering.now())
                .unwrap();
        }
        let held = metering.kept().meter.hold(&a.asker(), "s", metering.now()).unwrap();
        metering.kept().keep_up_with(&before);
        assert_eq!(metering.kept().meter.principals(), 2);
        metering.kept().keep_up_with(&projects(&["c"]));
        assert_eq!(metering.kept().meter.principals(), 1);
        metering.kept().meter.release(held);
        metering.kept().keep_up_with(&projects(&["c"]));
        assert_eq!(metering.kept().meter.principals(), 0);
        assert_eq!(metering.kept().meter.left(&b.asker(), metering.now())[0].available, 9, "it would begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_out_of_history_is_owed_when_the_response_has_ended() {
        let (metering, projects) = (metering(), projects(&["a"]));
        let mut payer = payer(&metering, &projects, "a");
        payer.quotas.principal.bytes = payer.quotas.principal.requests;
        let payer = Arc::new(payer);
        let held = metering.kept().meter.hold(&payer.asker(), "s", metering.now()).unwrap();
        let place = Some((Arc::clone(&payer), Some(held)));
        let mut attendance = Attendance { place, _connection: None, replayed: 0 };
        let left =
            || metering.kept().meter.left(&payer.asker(), metering.now()).iter().map(|left| left.available).collect();
        attendance.replayed(2);
        attendance.replayed(3);
        let during: Vec<_> = left();
        drop(attendance);
        let after: Vec<_> = left();
        assert_eq!((during, after), (vec![9, 9, 0], vec![9, 4, 1]), "requests, bytes, readers");
    }

    #[test]
    fn a_request_costs_what_it_declares_and_a_live_one_a_connection_besides() {
        let asked = |method: &str, query: &str, body: Body| {
            let uri = format!("/v1/stream/s{query}");
            let (parts, body) = http::Request::builder().method(method).uri(uri).body(body).unwrap().into_parts();
            cost_of(&parts, &body, 100)
        };
        let table = [
            ("GET", "", "", (1, 0)),
            ("GET", "?offset=-1", "", (1, 0)),
            ("GET", "?offset=-1&live=sse", "", (1, 1)),
            ("GET", "?offset=-1&live=long-poll", "", (1, 1)),
            ("GET", "?live=nonsense", "", (1, 0)),
            ("HEAD", "", "", (0, 0)),
            ("DELETE", "", "", (0, 0)),
            ("POST", "?offset=-1&live=sse", "abc", (3, 0)),
        ];
        for (method, query, body, (bytes, connections)) in table {
            assert_eq!(asked(method, query, body.into()), Cost { requests: 1, bytes, connections }, "{method} {query}");
        }
        assert_eq!(asked("PUT", "", "x".repeat(1000).into()).bytes, 100);
    }
}
