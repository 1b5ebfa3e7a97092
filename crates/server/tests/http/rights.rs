//! Who may do what: a table, written by hand, of each path that is served somewhere, each method, each kind of credentials, and
//! each spelling of a stream's name. A path or method that is not in the table fails. What is spelled like a path, and is
//! another one or none, has a table in [`spellings`](crate::spellings).

use std::{
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
    time::Duration,
};

use axum::body::Body;
use http_body_util::BodyExt as _;
use tailwater_auth::{
    File, Moment, NewToken, Operator, Projects, Purpose, Scopes, TicketId, TicketSecrets, mint, register::Record,
    ticket::issue,
};
use tailwater_log::{NewRecord, Visibility};
use tailwater_protocol::ProjectId;
use tailwater_register::RegisterLog;
use tailwater_server::{Auth, Config, Guard, Surface, paths, paths_of};
use tailwater_testkit::ScriptedUpstream;
use tailwater_upstream::{Append, StreamKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    fixture::{Fixture, NOW_MS},
    wire::{LIMIT, serve},
};

/// `chat` has what the table is about, `other` somebody else's streams, `shared` allows pages of two origins and lets
/// writers read, `wide` those of every origin and is public.
pub(crate) const PROJECTS: &str = r#"
[[project]]
id = "chat"
cookie = "__Host-session"
[[project.key]]
algorithm = "HS256"
secret = "the secret of chat, and it is long enough"

[[project]]
id = "other"
[[project.key]]
algorithm = "HS256"
secret = "the secret of other, and it is long enough"

[[project]]
id = "shared"
origins = ["https://app.example", "http://localhost:3000"]
cookie = "session"
writers-read = true
[[project.key]]
algorithm = "HS256"
secret = "the secret of shared, and it is long enough"

[[project]]
id = "wide"
visibility = "public"
origins = ["*"]
cookie = "session"
[[project.key]]
algorithm = "HS256"
secret = "the secret of wide, and it is long enough"
"#;

/// `chat` as it is put at run time.
const CHAT: &str = r#"
[[project]]
id = "chat"
[[project.key]]
id = "1"
algorithm = "HS256"
secret = "the secret of chat, and it is long enough"
[[project.key]]
id = "2"
algorithm = "HS256"
secret = "another secret of chat, which is long enough"
"#;

/// The columns: nobody; `Basic`; no token at all in the header of one; a token that has expired; one of another project;
/// tokens with one scope each, with all, and with all for some streams, which are the ones in question or others; the
/// operator's credential; tickets for the stream, for another one, for pages of another origin, one that has expired, and one
/// beside a token for everything; the project's cookie with a token to read, as a page of the gateway's own origin sends it,
/// and as a request that does not say where it is from.
pub(crate) const WHO: [&str; 19] = [
    "nobody",
    "basic",
    "junk",
    "expired",
    "foreign",
    "read",
    "write",
    "manage",
    "all",
    "own",
    "elsewhere",
    "operator",
    "ticket",
    "other-ticket",
    "ticket-elsewhere",
    "old-ticket",
    "two",
    "cookie",
    "bare-cookie",
];

/// Who may administer all projects, and read or write no stream.
const OPERATOR: &str = "the-credential-of-who-runs-all-this";

/// The rows: the method, the path as the router has it, what is asked for, in a project that says so where one does; and the
/// status for each column, at each listener that serves the path.
const RIGHTS: &str = "
GET     /v1/stream/{*path}  private          401 401 401 401 401 200 403 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  public           200 200 401 401 401 200 200 200 200 200 200 401 200 401 401 401 400 200 200
GET     /v1/stream/{*path}  missing          401 401 401 401 401 404 403 403 404 404 404 401 404 401 401 401 400 404 401
GET     /v1/stream/{*path}  native           401 401 401 401 401 200 403 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  private-poll     401 401 401 401 401 200 403 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  public-poll      200 200 401 401 401 200 200 200 200 200 200 401 200 401 401 401 400 200 200
GET     /v1/stream/{*path}  missing-poll     401 401 401 401 401 404 403 403 404 404 404 401 404 401 401 401 400 404 401
GET     /v1/stream/{*path}  private-events   401 401 401 401 401 200 403 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  public-events    200 200 401 401 401 200 200 200 200 200 200 401 200 401 401 401 400 200 200
GET     /v1/stream/{*path}  missing-events   401 401 401 401 401 404 403 403 404 404 404 401 404 401 401 401 400 404 401
HEAD    /v1/stream/{*path}  private          401 401 401 401 401 200 403 403 200 200 404 401 200 401 401 401 400 200 401
HEAD    /v1/stream/{*path}  public           200 200 401 401 401 200 200 200 200 200 200 401 200 401 401 401 400 200 200
HEAD    /v1/stream/{*path}  missing          401 401 401 401 401 404 403 403 404 404 404 401 404 401 401 401 400 404 401
PUT     /v1/stream/{*path}  missing          401 401 401 401 401 403 201 403 201 201 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  private          401 401 401 401 401 403 200 403 200 200 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  public           401 401 401 401 401 403 200 403 200 200 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-private  401 401 401 401 401 403 403 403 201 201 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-public   401 401 401 401 401 403 201 403 201 201 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-missing  401 401 401 401 401 403 403 403 404 404 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-others   401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-wide     401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-nowhere  401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  private          401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  public           401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  missing          401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  private-close    401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  private          401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  public           401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  missing          401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  audit            401 401 401 401 401 403 403 403 403 403 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  audit            401 401 401 401 401 403 403 403 403 403 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  audit            401 401 401 401 401 403 403 403 403 403 403 401 401 401 401 401 400 401 401
GET     /v1/stream/{*path}  audit            401 401 401 401 401 404 403 403 404 404 404 401 404 401 401 401 400 404 401
GET     /v1/stream/{*path}  private/writers-read  401 401 401 401 401 200 200 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  missing/writers-read  401 401 401 401 401 404 404 403 404 404 404 401 404 401 401 401 400 404 401
GET     /v1/stream/{*path}  private-poll/writers-read  401 401 401 401 401 200 200 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  missing-poll/writers-read  401 401 401 401 401 404 404 403 404 404 404 401 404 401 401 401 400 404 401
GET     /v1/stream/{*path}  private-events/writers-read  401 401 401 401 401 200 200 403 200 200 404 401 200 401 401 401 400 200 401
GET     /v1/stream/{*path}  missing-events/writers-read  401 401 401 401 401 404 404 403 404 404 404 401 404 401 401 401 400 404 401
GET     /v1/stream/{*path}  public/writers-read  200 200 401 401 401 200 200 200 200 200 200 401 200 401 401 401 400 200 200
GET     /v1/stream/{*path}  native/writers-read  401 401 401 401 401 200 200 403 200 200 404 401 200 401 401 401 400 200 401
HEAD    /v1/stream/{*path}  private/writers-read  401 401 401 401 401 200 200 403 200 200 404 401 200 401 401 401 400 200 401
HEAD    /v1/stream/{*path}  missing/writers-read  401 401 401 401 401 404 404 403 404 404 404 401 404 401 401 401 400 404 401
PUT     /v1/stream/{*path}  fork-of-private/writers-read  401 401 401 401 401 403 201 403 201 201 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-missing/writers-read  401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  fork-of-others/writers-read  401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  private/writers-read  401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  private/writers-read  401 401 401 401 401 403 204 403 204 204 403 401 401 401 401 401 400 401 401
PATCH   /v1/stream/{*path}  private          405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/stream/{*path}  private          204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/stream/         -                400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
HEAD    /v1/stream/         -                400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
PUT     /v1/stream/         -                400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
POST    /v1/stream/         -                400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
DELETE  /v1/stream/         -                400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
PATCH   /v1/stream/         -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/stream/         -                204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /health             -                200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200
HEAD    /health             -                200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200
PUT     /health             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /health             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /health             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /health             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /health             -                204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /readyz             -                200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200
HEAD    /readyz             -                200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200
PUT     /readyz             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /readyz             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /readyz             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /readyz             -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /readyz             -                204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /metrics            -                200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200
HEAD    /metrics            -                200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200 200
PUT     /metrics            -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /metrics            -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /metrics            -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /metrics            -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /metrics            -                204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /debug/profile      -                401 401 401 401 401 401 401 401 401 401 401 200 401 401 401 401 401 401 401
HEAD    /debug/profile      -                401 401 401 401 401 401 401 401 401 401 401 200 401 401 401 401 401 401 401
PUT     /debug/profile      -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /debug/profile      -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /debug/profile      -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /debug/profile      -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /debug/profile      -                204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/ticket          -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/ticket          -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/ticket          -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/ticket          -                401 401 401 401 401 201 403 403 201 201 404 401 401 401 401 401 201 401 401
DELETE  /v1/ticket          -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/ticket          -                405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/ticket          -                204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects  -  401 401 401 401 401 401 401 401 401 401 401 200 401 401 401 401 401 401 401
HEAD    /v1/admin/projects  -  401 401 401 401 401 401 401 401 401 401 401 200 401 401 401 401 401 401 401
PUT     /v1/admin/projects  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects  -  401 401 401 401 401 401 401 401 401 401 401 409 401 401 401 401 401 401 401
DELETE  /v1/admin/projects  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}  -  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
HEAD    /v1/admin/projects/{project}  -  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
PUT     /v1/admin/projects/{project}  -  401 401 401 401 401 403 403 403 403 403 403 409 401 401 401 401 403 401 401
POST    /v1/admin/projects/{project}  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}  -  401 401 401 401 401 403 403 403 403 403 403 409 401 401 401 401 403 401 401
PATCH   /v1/admin/projects/{project}  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys  -  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
HEAD    /v1/admin/projects/{project}/keys  -  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
PUT     /v1/admin/projects/{project}/keys  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/keys  -  401 401 401 401 401 403 403 409 409 403 403 409 401 401 401 401 409 401 401
DELETE  /v1/admin/projects/{project}/keys  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/keys  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys/{key}  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/keys/{key}  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/keys/{key}  -  401 401 401 401 401 403 403 409 409 403 403 409 401 401 401 401 409 401 401
POST    /v1/admin/projects/{project}/keys/{key}  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}/keys/{key}  -  401 401 401 401 401 403 403 409 409 403 403 409 401 401 401 401 409 401 401
PATCH   /v1/admin/projects/{project}/keys/{key}  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys/{key}  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/revocations  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/revocations  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/revocations  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/revocations  -  401 401 401 401 401 403 403 409 409 403 403 409 401 401 401 401 409 401 401
POST    /v1/admin/projects/{project}/revocations  run-time  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
DELETE  /v1/admin/projects/{project}/revocations  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/revocations  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/revocations  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/tokens  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/tokens  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/tokens  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/tokens  -  401 401 401 401 401 403 403 403 201 403 403 201 401 401 401 401 201 401 401
DELETE  /v1/admin/projects/{project}/tokens  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/tokens  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/tokens  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/tokens/inspect  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/tokens/inspect  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/tokens/inspect  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/tokens/inspect  -  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
DELETE  /v1/admin/projects/{project}/tokens/inspect  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/tokens/inspect  -  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/tokens/inspect  -  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
POST    /v1/admin/projects  run-time  401 401 401 401 401 401 401 401 401 401 401 201 401 401 401 401 401 401 401
GET     /v1/admin/projects/{project}  run-time  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
PUT     /v1/admin/projects/{project}  run-time  401 401 401 401 401 403 403 403 403 403 403 200 401 401 401 401 403 401 401
DELETE  /v1/admin/projects/{project}  run-time  401 401 401 401 401 403 403 403 403 403 403 200 401 401 401 401 403 401 401
POST    /v1/admin/projects/{project}/keys  run-time  401 401 401 401 401 403 403 201 201 403 403 201 401 401 401 401 201 401 401
PUT     /v1/admin/projects/{project}/keys/{key}  run-time  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
DELETE  /v1/admin/projects/{project}/keys/{key}  run-time  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
POST    /v1/admin/projects/{project}/tokens  run-time  401 401 401 401 401 403 403 403 201 403 403 201 401 401 401 401 201 401 401
POST    /v1/ticket  -/writers-read  401 401 401 401 401 201 201 403 201 201 404 401 401 401 401 401 201 401 401
GET     /v1/admin/projects/{project}  -/writers-read  401 401 401 401 401 403 403 200 200 403 403 200 401 401 401 401 200 401 401
";

/// Spellings of one name: whatever they are, the answer is the same.
const SAME: [&str; 4] =
    ["chat/room/a%20b", "%63hat/room/a%20b", "chat/%72%6F%6fm/%61%20b", "%63%68%61%74/room/%61%20%62"];

pub(crate) fn guarded() -> Fixture {
    guarded_by(PROJECTS, config())
}

fn guarded_by(projects: &str, config: Config) -> Fixture {
    let projects = Projects::parse([File { name: "projects.toml", bytes: projects.as_bytes() }]).unwrap();
    let auth = Auth::Required(Guard::fixed(projects, Duration::from_secs(30)));
    Fixture::with(Config { auth, ..config }, fanout())
}

/// The same with `chat` for a project of run time, which has two keys.
async fn at_run_time(config: Config) -> Fixture {
    let others = PROJECTS.split("[[project]]").filter(|text| !text.contains("\"chat\""));
    let others = others.collect::<Vec<_>>().join("[[project]]");
    let projects = Projects::parse([File { name: "projects.toml", bytes: others.as_bytes() }]).unwrap();
    let upstream = ScriptedUpstream::default();
    let record = Record::put(Zeroizing::new(CHAT.to_owned())).unwrap().encode();
    let batch = Append::new(vec![NewRecord::message(record.into())]);
    upstream.land(&RegisterLog::key(), batch).unwrap();
    let guard = Guard::fixed(projects, Duration::from_secs(30));
    Fixture::beside_register(upstream, guard, config, fanout()).read().await
}

/// The gateway of a row at the listeners of a surface, with what the row is about.
pub(crate) async fn gateway_of(subject: &str, surface: Surface) -> Fixture {
    let config = Config { surface, ..config() };
    let fixture = match subject.split_once('/') {
        Some((_, said)) => {
            guarded_by(&PROJECTS.replacen("id = \"chat\"", &format!("id = \"chat\"\n{said} = true"), 1), config)
        }
        None if subject == "run-time" => at_run_time(config).await,
        // The audit log is the stream that the rows are about.
        None if subject == "audit" => {
            guarded_by(PROJECTS, Config { audit: Some(StreamKey::new("chat", "room/a b")), ..config })
        }
        None => guarded_by(PROJECTS, config),
    };
    prepare(&fixture, subject).await;
    fixture
}

fn fanout() -> tailwater_fanout::Config {
    tailwater_fanout::Config { undeclared_visibility: Visibility::Private, ..Default::default() }
}

fn config() -> Config {
    let operator = Some(Operator::new(OPERATOR).unwrap());
    Config { operator, ..Config::default() }
}

pub(crate) fn token(project: &str, scopes: &str, streams: Option<&str>, expires_in: i64) -> String {
    static PARSED: LazyLock<Projects> =
        LazyLock::new(|| Projects::parse([File { name: "projects.toml", bytes: PROJECTS.as_bytes() }]).unwrap());
    let project = ProjectId::parse(project).unwrap();
    let key = PARSED.get(&project).unwrap().keys.first().unwrap().signing().unwrap();
    let now = NOW_MS / 1000;
    let new = NewToken {
        project,
        scopes: Scopes::among(scopes.split(' ')),
        streams: streams.map(|pattern| vec![pattern.to_owned()]),
        issued_at: now.saturating_sub(1000),
        expires_at: now.checked_add_signed(expires_in).unwrap(),
        not_before: None,
        audience: None,
        issuer: None,
        id: None,
    };
    mint(&key, &new).unwrap()
}

/// The origin of the page that the tickets here are for.
pub(crate) const PAGE: &str = "https://app.example";

/// A ticket that was issued some seconds ago to who may read everything in this project.
pub(crate) fn ticket(project: &str, stream: &str, origin: &str, ago: u64) -> String {
    let projects = Projects::parse([File { name: "projects.toml", bytes: PROJECTS.as_bytes() }]).unwrap();
    let id = ProjectId::parse(project).unwrap();
    let now = NOW_MS / 1000;
    let bearer = token(project, "read", None, 60);
    let grant = projects.verify(&id, &bearer, Moment { now, skew: 0 }).unwrap();
    let purpose = Purpose { project: projects.get(&id).unwrap(), stream, origin, secrets: &TicketSecrets::default() };
    issue(&purpose, &grant, now - ago, TicketId([7; 9])).unwrap().reveal().to_owned()
}

/// Headers, and a ticket that stands in the query.
pub(crate) type Shown = (Vec<(&'static str, String)>, Option<String>);

/// What a column adds to a request.
pub(crate) fn shown(who: &str) -> Shown {
    let page = ("origin", PAGE.to_owned());
    let cookie = || ("cookie", format!("theme=dark; __Host-session={}", token("chat", "read", None, 60)));
    match who {
        "ticket" => (vec![page], Some(ticket("chat", "room/a b", PAGE, 0))),
        "other-ticket" => (vec![page], Some(ticket("chat", "room/a", PAGE, 0))),
        "ticket-elsewhere" => (vec![page], Some(ticket("chat", "room/a b", "https://evil.example", 0))),
        "old-ticket" => (vec![page], Some(ticket("chat", "room/a b", PAGE, 3600))),
        "two" => {
            let authorization = ("authorization", credentials("all").unwrap());
            (vec![page, authorization], Some(ticket("chat", "room/a b", PAGE, 0)))
        }
        "cookie" => (vec![cookie(), ("sec-fetch-site", "same-origin".to_owned())], None),
        "bare-cookie" => (vec![cookie()], None),
        who => (credentials(who).map(|value| ("authorization", value)).into_iter().collect(), None),
    }
}

/// A path that is served, about what is there.
pub(crate) fn filled(path: &str) -> String {
    path.replace("{*path}", SAME[0]).replace("{project}", "chat").replace("{key}", "1")
}

/// A URL with a ticket behind what else it asks for, if there is one.
pub(crate) fn with_ticket(uri: &str, ticket: Option<&str>) -> String {
    let mark = if uri.contains('?') { '&' } else { '?' };
    ticket.map_or_else(|| uri.to_owned(), |ticket| format!("{uri}{mark}ticket={ticket}"))
}

/// What stands in `Authorization`, if anything.
pub(crate) fn credentials(who: &str) -> Option<String> {
    let all = "read write manage";
    let token = match who {
        "nobody" => return None,
        "basic" => return Some("Basic Y2hhdDpjaGF0".to_owned()),
        "junk" => "junk".to_owned(),
        "operator" => OPERATOR.to_owned(),
        "expired" => token("chat", all, None, -31),
        "foreign" => token("other", all, None, 60),
        "own" => token("chat", all, Some("room/**"), 60),
        "elsewhere" => token("chat", all, Some("elsewhere/**"), 60),
        "all" => token("chat", all, None, 60),
        scope => token("chat", scope, None, 60),
    };
    Some(format!("Bearer {token}"))
}

/// Makes what a row is about, with a token that may do so.
pub(crate) async fn prepare(fixture: &Fixture, subject: &str) {
    let put = async |path: &str, project: &str, visibility: &str| {
        let bearer = format!("Bearer {}", token(project, "write", None, 60));
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "text/plain"), ("stream-visibility", visibility)];
        assert_eq!(fixture.send("PUT", path, &headers, "hello").await.status, 201);
    };
    match subject.split(['-', '/']).next().unwrap() {
        visibility @ ("private" | "public") => put("/v1/stream/chat/room/a%20b", "chat", visibility).await,
        "native" => {
            fixture.upstream.append_native(&StreamKey::new("chat", "room/a b"), ["hello"]);
        }
        "fork" => {
            put("/v1/stream/chat/room/private", "chat", "private").await;
            put("/v1/stream/chat/room/public", "chat", "public").await;
            put("/v1/stream/other/s", "other", "private").await;
            put("/v1/stream/wide/s", "wide", "public").await;
            public_in_no_project(fixture).await;
        }
        _ => {}
    }
}

/// Makes a public stream of a project that is not there, or not any more.
async fn public_in_no_project(fixture: &Fixture) {
    let open = Fixture::on(fixture.upstream.clone(), Config::default(), tailwater_fanout::Config::default());
    let headers = [("content-type", "text/plain"), ("stream-visibility", "public")];
    assert_eq!(open.send("PUT", "/v1/stream/nowhere/s", &headers, "hello").await.status, 201);
}

/// What is asked of the administration where things change at run time.
fn at_run_time_asked(path: &str, method: &str) -> &'static str {
    match (path.rsplit('/').next().unwrap(), method) {
        ("projects", _) => {
            "[[project]]\nid='new'\n[[project.key]]\nalgorithm='HS256'\nsecret='the secret of new, long enough for all'"
        }
        ("{project}", _) => CHAT,
        ("keys", _) => r#"{"id":"3"}"#,
        ("tokens", _) => r#"{"scope":["read"]}"#,
        ("revocations", _) => r#"{"id":"a-token"}"#,
        _ => "",
    }
}

/// The request of a row: the rest of the path, headers, body.
pub(crate) fn asked(
    method: &str,
    path: &str,
    subject: &str,
) -> (&'static str, Vec<(&'static str, &'static str)>, &'static str) {
    let subject = subject.split('/').next().unwrap();
    let plain = ("content-type", "text/plain");
    let fork = |source| ("", vec![("stream-forked-from", source)], "");
    match (method, subject) {
        ("POST", "-") if path == "/v1/ticket" => ("", vec![], WANTED),
        ("POST" | "PUT", "run-time") => ("", vec![], at_run_time_asked(path, method)),
        ("POST", "-") => ("", vec![], r#"{"scope":["read"]}"#),
        ("GET", poll) if poll.ends_with("-poll") => ("?offset=-1&live=long-poll", vec![], ""),
        ("GET", events) if events.ends_with("-events") => ("?offset=-1&live=sse", vec![], ""),
        ("PUT", "fork-of-private") => fork("/v1/stream/chat/room/private"),
        ("PUT", "fork-of-public") => fork("/v1/stream/chat/room/public"),
        ("PUT", "fork-of-missing") => fork("/v1/stream/chat/room/missing"),
        ("PUT", "fork-of-others") => fork("/v1/stream/other/s"),
        ("PUT", "fork-of-wide") => fork("/v1/stream/wide/s"),
        ("PUT", "fork-of-nowhere") => fork("/v1/stream/nowhere/s"),
        ("PUT", _) => ("", vec![plain], ""),
        ("POST", "private-close") => ("", vec![("stream-closed", "true")], ""),
        ("POST", _) => ("", vec![plain], "more"),
        _ => ("", vec![], ""),
    }
}

/// A ticket, asked for.
const WANTED: &str = r#"{"stream":"chat/room/a%20b","origin":"https://app.example"}"#;

/// A line of a table: the method, the path, what it is about, and a status for each column.
pub(crate) struct Row {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) statuses: Vec<u16>,
}

pub(crate) fn rows(table: &'static str) -> Vec<Row> {
    let row = |line: &'static str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap();
        let (method, path, subject) = (word(), word(), word());
        let statuses: Vec<_> = words.map(|status| status.parse().unwrap()).collect();
        assert_eq!(statuses.len(), WHO.len(), "{line}");
        Row { method, path, subject, statuses }
    };
    table.trim().lines().map(row).collect()
}

/// All that can be asked of a path.
pub(crate) const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];
pub(crate) const SURFACES: [Surface; 3] = [Surface::All, Surface::Streams, Surface::Operations];

/// Where a path is served.
fn serving(path: &str) -> impl Iterator<Item = Surface> {
    SURFACES.into_iter().filter(move |surface| paths_of(*surface).any(|served| served == path))
}

#[test]
fn every_path_and_method_is_in_the_table() {
    let listed: BTreeSet<_> = rows(RIGHTS).into_iter().map(|row| (row.path, row.method)).collect();
    let served: BTreeSet<_> = paths().flat_map(|path| METHODS.map(|method| (path, method))).collect();
    assert_eq!(listed, served);
    assert!(paths().all(|path| serving(path).next().is_some()), "what is served is served somewhere");
}

/// Asks what a row asks, as somebody, at a spelling of its path, and holds what is answered against the status. Says whether it
/// was decided without the store, so that all is as it was.
pub(crate) async fn ask(
    fixture: &Fixture,
    row: &Row,
    spelling: &str,
    (who, shown): (&str, &Shown),
    status: u16,
) -> bool {
    let Row { method, path, subject, .. } = row;
    let (query, mut headers, body) = asked(method, path, subject);
    let (fields, ticket) = shown;
    headers.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
    let before = fixture.upstream.counts();
    let uri = with_ticket(&format!("{spelling}{query}"), ticket.as_deref());
    let response = fixture.respond(method, &uri, &headers, Body::from(body)).await;
    let cell = format!("{method} {uri} {subject} by {who} at {:?}", fixture.surface);
    assert_eq!(response.status(), status, "{cell}");
    let challenged = response.headers().contains_key("www-authenticate");
    assert_eq!(challenged, matches!(status, 401 | 403), "{cell}");
    if challenged || status == 404 {
        let shown = response.headers().keys().any(|name| {
            let name = name.as_str();
            name.starts_with("stream-") || ["etag", "location", "last-modified"].contains(&name)
        });
        assert!(!shown, "{cell}: {:?}", response.headers());
    }
    // Who may administer the project is judged on what other gateways were asked for before.
    if (*subject, who, path.rsplit('/').next()) == ("run-time", "manage", Some("tokens")) {
        return false;
    }
    let needs_no_look = match status {
        // Of what is wrong with a request of run time some is seen only beside what other gateways were asked for.
        400 => *subject != "run-time",
        401 => !["nobody", "basic", "bare-cookie"].contains(&who),
        403 => !["GET", "HEAD", "PUT"].contains(method),
        405 => true,
        _ => false,
    };
    if needs_no_look {
        assert_eq!(fixture.upstream.counts(), before, "{cell}: the store was asked");
    }
    needs_no_look
}

/// Everybody asks what a row asks, of a gateway on which nothing has come of what was asked before.
async fn ask_all(row: &Row, spelling: &str, surface: Surface, all_shown: &[Shown; WHO.len()]) {
    let mut as_it_was = None;
    for ((who, shown), status) in WHO.into_iter().zip(all_shown).zip(&row.statuses) {
        let fixture = match as_it_was.take() {
            Some(fixture) => fixture,
            None => gateway_of(row.subject, surface).await,
        };
        if ask(&fixture, row, spelling, (who, shown), *status).await {
            as_it_was = Some(fixture);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_may_do_with_streams_what_the_table_says_however_a_name_is_spelled() {
    let all_shown = WHO.map(shown);
    for row in rows(RIGHTS) {
        let Some(root) = row.path.strip_suffix("{*path}") else { continue };
        for surface in serving(row.path) {
            let spellings = if surface == Surface::All { &SAME[..] } else { &SAME[..1] };
            for spelling in spellings.iter().map(|name| format!("{root}{name}")) {
                ask_all(&row, &spelling, surface, &all_shown).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_may_do_elsewhere_what_the_table_says_wherever_it_is_served() {
    let all_shown = WHO.map(shown);
    for row in rows(RIGHTS).into_iter().filter(|row| !row.path.ends_with("{*path}")) {
        for surface in serving(row.path) {
            ask_all(&row, &filled(row.path), surface, &all_shown).await;
        }
    }
}

/// Everything of a response that a client sees.
async fn seen(fixture: &Fixture, method: &str, uri: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
    let response = fixture.respond(method, uri, headers, Body::empty()).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    let mut fields: Vec<_> = parts.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    fields.sort();
    (parts.status.as_u16(), fields.join("\n"), body)
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_seen_looks_like_what_is_not_there() {
    let subjects = ["private", "missing", "native"];
    let mut answers: HashMap<(&str, &str, &str), Vec<_>> = HashMap::new();
    for subject in subjects {
        let fixture = guarded();
        prepare(&fixture, subject).await;
        let refused = [
            "nobody",
            "junk",
            "write",
            "elsewhere",
            "other-ticket",
            "ticket-elsewhere",
            "old-ticket",
            "two",
            "bare-cookie",
        ];
        for who in refused {
            let (shown, ticket) = shown(who);
            for query in ["", "?offset=now", "?offset=-1&live=sse", "?offset=now&live=long-poll", "?offset=5_5"] {
                for condition in [None, Some(("if-none-match", "*"))] {
                    let shown = shown.iter().map(|(name, value)| (*name, value.as_str()));
                    let headers: Vec<_> = shown.chain(condition).collect();
                    let uri = with_ticket(&format!("/v1/stream/chat/room/a%20b{query}"), ticket.as_deref());
                    let method = if query.is_empty() && condition.is_none() { "HEAD" } else { "GET" };
                    answers.entry((who, query, method)).or_default().push(seen(&fixture, method, &uri, &headers).await);
                }
            }
        }
    }
    for (asked, answers) in answers {
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{asked:?}: {answers:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_kept_alive_by_those_who_may_not_read_it() {
    let fixture = guarded();
    let owner = format!("Bearer {}", token("chat", "read write", None, 600));
    let owner = ("authorization", owner.as_str());
    let path = "/v1/stream/chat/room/s";
    let headers = [owner, ("content-type", "text/plain"), ("stream-ttl", "100")];
    assert_eq!(fixture.send("PUT", path, &headers, "a").await.status, 201);
    let appends = |fixture: &Fixture| fixture.upstream.counts().appends;
    let (foreign, write) = (token("other", "read write", None, 600), token("chat", "write", None, 600));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = appends(&fixture);
    for bearer in [None, Some(&foreign), Some(&write)] {
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.as_deref().map(|value| ("authorization", value)).into_iter().collect();
        for query in ["", "?offset=now", "?offset=-1&live=sse", "?offset=-1&live=long-poll"] {
            assert!(fixture.send("GET", &format!("{path}{query}"), &headers, "").await.status >= 401, "{query}");
        }
    }
    let foreign = format!("Bearer {foreign}");
    let fork = [("authorization", foreign.as_str()), ("stream-forked-from", path)];
    assert_eq!(fixture.send("PUT", "/v1/stream/other/fork", &fork, "").await.status, 404);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(appends(&fixture), before, "who may not read it has used it");
    assert_eq!(fixture.send("GET", path, &[owner], "").await.status, 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(appends(&fixture), before + 1, "who may read it has");
}

#[tokio::test(start_paused = true)]
async fn what_other_projects_show_is_read_and_not_forked() {
    let fixture = guarded();
    prepare(&fixture, "fork").await;
    assert_eq!(fixture.send("GET", "/v1/stream/wide/s", &[], "").await.status, 200);
    assert_eq!(fixture.send("GET", "/v1/stream/nowhere/s", &[], "").await.status, 401, "it has no project");
    let bearer = credentials("all").unwrap();
    let before = fixture.upstream.counts();
    let mut answers = Vec::new();
    for source in ["wide/s", "wide/none", "other/s", "nowhere/s", "nowhere/none"].map(|s| format!("/v1/stream/{s}")) {
        for body in ["", "{"] {
            let headers = [("authorization", bearer.as_str()), ("stream-forked-from", source.as_str())];
            let answer = fixture.send("PUT", "/v1/stream/chat/room/fork", &headers, body).await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "fork_source_not_found"), "{source}");
            answers.push(answer.body);
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(fixture.upstream.counts(), before, "the store was asked");
}

#[tokio::test(start_paused = true)]
async fn a_project_that_is_not_there_looks_like_one_that_shows_nothing() {
    let fixture = guarded();
    prepare(&fixture, "private").await;
    let bearer = |who| vec![("authorization", credentials(who).unwrap())];
    let cookies = |cookies: &str| vec![("cookie", cookies.to_owned()), ("sec-fetch-site", "same-origin".to_owned())];
    let of_other = token("other", "read", None, 60);
    let ticket = format!("?ticket={}", ticket("other", "room/a b", PAGE, 0));
    let page = || vec![("origin", PAGE.to_owned())];
    let table = [
        ("", vec![]),
        ("", bearer("junk")),
        ("", bearer("foreign")),
        ("", cookies("__Host-session=junk")),
        ("", cookies(&format!("__Host-session={of_other}"))),
        ("", cookies(&format!("__Host-session={of_other}; __Host-session={of_other}"))),
        ("?ticket=", vec![]),
        ("?ticket=junk", page()),
        (ticket.as_str(), vec![]),
        (ticket.as_str(), page()),
        ("?ticket=a&ticket=b", vec![]),
    ];
    for (query, headers) in table {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"] {
            let here = seen(&fixture, method, &format!("/v1/stream/chat/room/a%20b{query}"), &headers).await;
            let nowhere = seen(&fixture, method, &format!("/v1/stream/nowhere/room/a%20b{query}"), &headers).await;
            assert_eq!(here, nowhere, "{method} {query} {headers:?}");
            assert!(here.0 >= 400 || method == "OPTIONS", "{method} {query} {headers:?}");
        }
    }
}

/// A body is read as the source's content type has it, where the fork names none.
#[tokio::test(start_paused = true)]
async fn a_fork_with_a_body_does_not_tell_what_its_source_is() {
    let fixture = guarded();
    for project in ["chat", "other"] {
        let bearer = format!("Bearer {}", token(project, "write", None, 60));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        assert_eq!(fixture.send("PUT", &format!("/v1/stream/{project}/json"), &headers, "[1]").await.status, 201);
    }
    let table = [
        ("all", "/v1/stream/other/json", 404, "fork_source_not_found"),
        ("all", "/v1/stream/other/nowhere", 404, "fork_source_not_found"),
        ("own", "/v1/stream/chat/json", 404, "fork_source_not_found"),
        ("own", "/v1/stream/chat/nowhere", 404, "fork_source_not_found"),
        ("write", "/v1/stream/chat/json", 403, "scope_needed"),
        ("write", "/v1/stream/chat/nowhere", 403, "scope_needed"),
        ("all", "/v1/stream/chat/json", 400, "invalid_json"),
    ];
    for (who, source, status, code) in table {
        let bearer = credentials(who).unwrap();
        let headers = [("authorization", bearer.as_str()), ("stream-forked-from", source)];
        let answer = fixture.send("PUT", "/v1/stream/chat/room/fork", &headers, "{").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{who} {source}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_would_be_enough() {
    let fixture = guarded();
    let ask = async |method: &str, who: &str| {
        let bearer = credentials(who);
        let headers: Vec<_> = bearer.as_deref().map(|value| ("authorization", value)).into_iter().collect();
        fixture.send(method, "/v1/stream/chat/room/s", &headers, "").await
    };
    let table = [
        ("POST", "nobody", 401, "token_needed", "Bearer realm=\"tailwater\""),
        (
            "POST",
            "expired",
            401,
            "token_refused",
            "Bearer realm=\"tailwater\", error=\"invalid_token\", error_description=\"the token has expired\"",
        ),
        (
            "POST",
            "read",
            403,
            "scope_needed",
            "Bearer realm=\"tailwater\", error=\"insufficient_scope\", scope=\"write\"",
        ),
        ("POST", "elsewhere", 403, "stream_not_allowed", "Bearer realm=\"tailwater\", error=\"insufficient_scope\""),
        ("GET", "elsewhere", 404, "stream_not_found", ""),
    ];
    for (method, who, status, code, challenge) in table {
        let answer = ask(method, who).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {who}");
        assert_eq!(answer.header("www-authenticate"), challenge, "{method} {who}");
    }
    assert_eq!(ask("POST", "expired").await.json()["reason"], "expired");
    assert_eq!(ask("POST", "read").await.json()["scope"], "write");
    let bearer = credentials("all").unwrap();
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    let answer = fixture.send("GET", "/v1/stream/chat/s", &twice, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "repeated_header"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_as_visible_as_its_creator_or_its_project_says() {
    let fixture = guarded();
    let table = [
        ("chat", None, "private", 401),
        ("chat", Some("public"), "public", 200),
        ("chat", Some("PRIVATE"), "private", 401),
        ("wide", None, "public", 200),
        ("wide", Some("private"), "private", 401),
    ];
    for (at, (project, declared, visibility, status)) in table.into_iter().enumerate() {
        let bearer = format!("Bearer {}", token(project, "read write", None, 60));
        let authorized = ("authorization", bearer.as_str());
        let path = format!("/v1/stream/{project}/s{at}");
        let mut headers = vec![authorized, ("content-type", "text/plain")];
        headers.extend(declared.map(|declared| ("stream-visibility", declared)));
        let created = fixture.send("PUT", &path, &headers, "a").await;
        assert_eq!((created.status, created.header("stream-visibility")), (201, visibility));
        assert_eq!(fixture.send("PUT", &path, &headers, "a").await.status, 200);
        assert_eq!(fixture.send("HEAD", &path, &[authorized], "").await.header("stream-visibility"), visibility);
        assert_eq!(fixture.send("GET", &path, &[], "").await.status, status, "{project} {declared:?}");
        let other = if visibility == "public" { "private" } else { "public" };
        let conflict = [authorized, ("content-type", "text/plain"), ("stream-visibility", other)];
        let answer = fixture.send("PUT", &path, &conflict, "a").await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "visibility_conflict"));
        let nonsense = [authorized, ("stream-visibility", "hidden")];
        let answer = fixture.send("PUT", &format!("{path}x"), &nonsense, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_visibility"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_in_open_mode_is_private_unless_its_creator_said_otherwise() {
    let fixture = guarded();
    let open = Fixture::on(fixture.upstream.clone(), Config::default(), tailwater_fanout::Config::default());
    let plain = ("content-type", "text/plain");
    for project in ["chat", "wide"] {
        for (declared, status) in [(None, 401), (Some("private"), 401), (Some("public"), 200)] {
            let path = format!("/v1/stream/{project}/{}", declared.unwrap_or("undeclared"));
            let headers: Vec<_> = declared.map(|declared| ("stream-visibility", declared)).into_iter().collect();
            let created = open.send("PUT", &path, &[&[plain], headers.as_slice()].concat(), "a").await;
            assert_eq!((created.status, created.header("stream-visibility")), (201, declared.unwrap_or("public")));
            assert_eq!(open.send("GET", &path, &[], "").await.status, 200);
            assert_eq!(fixture.send("GET", &path, &[], "").await.status, status, "{path}");
            let bearer = format!("Bearer {}", token(project, "read", None, 60));
            let answer = fixture.send("HEAD", &path, &[("authorization", &bearer)], "").await;
            assert_eq!((answer.status, answer.header("stream-visibility")), (200, declared.unwrap_or("private")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn caches_keep_what_is_public_and_know_what_an_answer_depends_on() {
    let fixture = guarded();
    let write = format!("Bearer {}", token("shared", "write", None, 60));
    let read = ("authorization", write.as_str());
    for visibility in ["public", "private"] {
        let headers = [read, ("content-type", "text/plain"), ("stream-visibility", visibility)];
        fixture.send("PUT", &format!("/v1/stream/shared/{visibility}"), &headers, "a").await;
    }
    let vary = |answer: &crate::fixture::Answer| {
        let mut names: Vec<_> = answer.headers.get_all("vary").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        names.sort();
        names.join(", ")
    };
    let public = fixture.send("GET", "/v1/stream/shared/public", &[], "").await;
    assert_eq!(public.header("cache-control"), "public, max-age=60, stale-while-revalidate=300");
    assert_eq!(vary(&public), "origin", "the same for everybody");
    prepare(&fixture, "fork").await;
    let wide = fixture.send("GET", "/v1/stream/wide/s", &[("origin", PAGE)], "").await;
    assert_eq!((wide.status, vary(&wide).as_str()), (200, ""), "the same for every page, too");
    let private = fixture.send("GET", "/v1/stream/shared/private", &[read], "").await;
    assert_eq!(private.header("cache-control"), "private, max-age=60, stale-while-revalidate=300");
    assert_eq!(vary(&private), "authorization, cookie, sec-fetch-site, origin");
    let known = [read, ("if-none-match", private.header("etag"))];
    let unchanged = fixture.send("GET", "/v1/stream/shared/private", &known, "").await;
    assert_eq!((unchanged.status, vary(&unchanged).as_str()), (304, "authorization, cookie, sec-fetch-site, origin"));
    let refused =
        fixture.send("GET", "/v1/stream/shared/private", &[("if-none-match", private.header("etag"))], "").await;
    assert_eq!((refused.status, refused.header("etag"), refused.header("cache-control")), (401, "", "no-store"));
}

#[tokio::test(start_paused = true)]
async fn pages_of_other_origins_see_what_the_project_lets_them_see() {
    let fixture = guarded();
    let app = "https://app.example";
    // The project, the origin, and what is allowed.
    let table = [
        ("chat", Some(app), ""),
        ("nowhere", Some(app), ""),
        ("shared", Some(app), app),
        ("shared", Some("http://localhost:3000"), "http://localhost:3000"),
        ("shared", Some("https://evil.example"), ""),
        ("shared", Some("null"), ""),
        ("shared", None, ""),
        ("wide", Some("https://evil.example"), "*"),
        ("wide", None, "*"),
    ];
    for (project, origin, allowed) in table {
        let headers: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        for method in ["OPTIONS", "GET", "POST"] {
            let path = format!("/v1/stream/{project}/s");
            let answer = fixture.send(method, &path, &headers, "").await;
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{method} {project} {origin:?}");
            let varies = answer.headers.get_all("vary").iter().any(|value| value == "origin");
            assert!(varies, "{method} {project} {origin:?}: what is not public depends on the page");
            let is_preflight = method == "OPTIONS" && !allowed.is_empty();
            assert_eq!(answer.header("access-control-max-age"), if is_preflight { "7200" } else { "" });
            assert_eq!(answer.header("access-control-allow-methods").is_empty(), !is_preflight);
        }
    }
    let twice = [("origin", app), ("origin", app)];
    let answer = fixture.send("GET", "/v1/stream/shared/s", &twice, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let answer = fixture.send("GET", "/health", &[("origin", app)], "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn who_is_refused_reads_why_however_much_he_has_to_say() {
    let fixture = guarded();
    let (_server, address) = serve(&fixture).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut answers, mut says) = stream.into_split();
    let length = 4 << 20;
    let head = format!("POST /v1/stream/chat/s HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
    let sent = async {
        says.write_all(head.as_bytes()).await.unwrap();
        says.write_all(&vec![b'x'; length]).await.unwrap();
    };
    let answered = async {
        let mut answer = vec![0; 12];
        answers.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 401");
    };
    timeout(LIMIT, async { tokio::join!(sent, answered) }).await.unwrap();
}
