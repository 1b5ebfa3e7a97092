//! What is spelled like a path that is served: letters that stand there as `%` and digits, slashes that are doubled, added or
//! encoded, letters of another case, dots. Of the rest of a path each part is decoded once; whatever else differs makes another
//! path, another name, or none. Written by hand, like the table of [`rights`](crate::rights), with whom it asks about.

use std::collections::{BTreeSet, HashMap};

use tailwater_server::{Surface, paths, paths_of};

use crate::rights::{METHODS, Row, SURFACES, WHO, ask, filled, gateway_of, rows, shown};

/// The path that is served, what is spelled like it, and what that comes to: `nothing` that is served, `no-name` of a stream,
/// another stream that tokens for `room/**` are for (`beside`) or are not (`outside`), a stream of a project that is not there
/// (`homeless`), or what is administered of what is no project's id (`no-id`), of a project that is not there (`no-project`) or
/// of a key that is not there (`no-key`).
const SPELLINGS: &str = r"
/v1/stream/{*path}  /v1/stream/chat/room%2Fa%20b              no-name
/v1/stream/{*path}  /v1/stream/chat/room%2fa%20b              no-name
/v1/stream/{*path}  /v1/stream/chat%2Froom/a%20b              no-name
/v1/stream/{*path}  /v1/stream/chat//room/a%20b               no-name
/v1/stream/{*path}  /v1/stream//chat/room/a%20b               no-name
/v1/stream/{*path}  /v1/stream/chat/room/a%20b/               no-name
/v1/stream/{*path}  /v1/stream/chat/./room/a%20b              no-name
/v1/stream/{*path}  /v1/stream/chat/x/../room/a%20b           no-name
/v1/stream/{*path}  /v1/stream/chat/x/%2e%2E/room/a%20b       no-name
/v1/stream/{*path}  /v1/stream/chat/room/a%20b%00             no-name
/v1/stream/{*path}  /v1/stream/chat;v=1/room/a%20b            no-name
/v1/stream/{*path}  /v1/stream/../admin/projects/chat         no-name
/v1/stream/{*path}  /v1/stream/%2e%2e/admin/projects/chat     no-name
/v1/stream/{*path}  /v1/stream/chat/../../admin/projects      no-name
/v1/stream/{*path}  /v1/stream/..%2Fticket                    no-name
/v1/stream/{*path}  /v1/stream/chat/room/a%2520b              beside
/v1/stream/{*path}  /v1/stream/chat/room/a+b                  beside
/v1/stream/{*path}  /v1/stream/chat/Room/a%20b                outside
/v1/stream/{*path}  /v1/stream/Chat/room/a%20b                homeless
/v1/stream/{*path}  /v1/stream/room/a%20b                     homeless
/v1/stream/{*path}  /v1/%73tream/chat/room/a%20b              nothing
/v1/stream/{*path}  /%76%31/stream/chat/room/a%20b            nothing
/v1/stream/{*path}  /v1/Stream/chat/room/a%20b                nothing
/v1/stream/{*path}  /V1/stream/chat/room/a%20b                nothing
/v1/stream/{*path}  //v1/stream/chat/room/a%20b               nothing
/v1/stream/{*path}  /v1//stream/chat/room/a%20b               nothing
/v1/stream/{*path}  /v1/./stream/chat/room/a%20b              nothing
/v1/stream/{*path}  /v1/x/../stream/chat/room/a%20b           nothing
/v1/stream/{*path}  /v1%2Fstream/chat/room/a%20b              nothing
/v1/stream/{*path}  /v1/stream%2Fchat/room/a%20b              nothing
/v1/stream/{*path}  /v1/stream;v=1/chat/room/a%20b            nothing
/v1/stream/{*path}  /v1/stream\chat\room\a%20b                nothing
/v1/stream/         /v1/stream                                nothing
/v1/stream/         /v1/%73tream/                             nothing
/v1/stream/         /v1/STREAM/                               nothing
/v1/stream/         //v1/stream/                              nothing
/v1/stream/         /v1//stream/                              nothing
/v1/stream/         /v1/stream//                              no-name
/v1/stream/         /v1/stream/%2F                            no-name
/v1/stream/         /v1/stream/.                              no-name
/v1/ticket          /v1/%74icket                              nothing
/v1/ticket          /v1/Ticket                                nothing
/v1/ticket          /V1/ticket                                nothing
/v1/ticket          /v1/ticket/                               nothing
/v1/ticket          /v1//ticket                               nothing
/v1/ticket          //v1/ticket                               nothing
/v1/ticket          /v1/./ticket                              nothing
/v1/ticket          /v1%2Fticket                              nothing
/v1/ticket          /v1/ticket%00                             nothing
/v1/ticket          /v1/ticket;v=1                            nothing
/health             /%68ealth                                 nothing
/health             /Health                                   nothing
/health             /health/                                  nothing
/health             //health                                  nothing
/health             /./health                                 nothing
/health             /health%20                                nothing
/readyz             /ready%7A                                 nothing
/readyz             /READYZ                                   nothing
/readyz             /readyz/                                  nothing
/readyz             //readyz                                  nothing
/metrics            /%6Detrics                                nothing
/metrics            /mEtrics                                  nothing
/metrics            /metrics/                                 nothing
/metrics            //metrics                                 nothing
/metrics            /v1/../metrics                            nothing
/metrics            /metrics%3F                               nothing
/debug/profile      /%64ebug/profile                          nothing
/debug/profile      /debug/p%72ofile                          nothing
/debug/profile      /debug/Profile                            nothing
/debug/profile      /debug/profile/                           nothing
/debug/profile      /debug//profile                           nothing
/debug/profile      /debug%2Fprofile                          nothing
/v1/admin/projects  /v1/%61dmin/projects                      nothing
/v1/admin/projects  /v1/admin/%70rojects                      nothing
/v1/admin/projects  /v1/Admin/projects                        nothing
/v1/admin/projects  /v1/admin/PROJECTS                        nothing
/v1/admin/projects  /v1/admin/projects/                       nothing
/v1/admin/projects  /v1/admin//projects                       nothing
/v1/admin/projects  //v1/admin/projects                       nothing
/v1/admin/projects  /v1/admin/./projects                      nothing
/v1/admin/projects  /v1/x/../admin/projects                   nothing
/v1/admin/projects  /v1/admin%2Fprojects                      nothing
/v1/admin/projects  /v1/admin\projects                        nothing
/v1/admin/projects/{project}  /v1/%61dmin/projects/chat       nothing
/v1/admin/projects/{project}  /v1/ADMIN/projects/chat         nothing
/v1/admin/projects/{project}  /v1/admin/projects/chat/        nothing
/v1/admin/projects/{project}  /v1/admin/projects//chat        nothing
/v1/admin/projects/{project}  /v1/admin/projects/./chat       nothing
/v1/admin/projects/{project}  /v1/admin/projects%2Fchat       nothing
/v1/admin/projects/{project}  /v1/admin/projects/%63hat       no-id
/v1/admin/projects/{project}  /v1/admin/projects/Chat         no-project
/v1/admin/projects/{project}  /v1/admin/projects/chat%2Fkeys  no-id
/v1/admin/projects/{project}  /v1/admin/projects/chat%00      no-id
/v1/admin/projects/{project}  /v1/admin/projects/chat;v=1     no-id
/v1/admin/projects/{project}  /v1/admin/projects/..           no-id
/v1/admin/projects/{project}/keys  /v1/admin/projects/chat/%6Beys   nothing
/v1/admin/projects/{project}/keys  /v1/admin/projects/chat/Keys     nothing
/v1/admin/projects/{project}/keys  /v1/admin/projects/chat/keys/    nothing
/v1/admin/projects/{project}/keys  /v1/admin/projects/chat//keys    nothing
/v1/admin/projects/{project}/keys  /v1/admin/projects/chat/./keys   nothing
/v1/admin/projects/{project}/keys  /v1/admin/projects/%63hat/keys   no-id
/v1/admin/projects/{project}/keys  /v1/admin/projects/CHAT/keys     no-project
/v1/admin/projects/{project}/keys  /v1/admin/projects/./keys        no-id
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/%6beys/1   nothing
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/KEYS/1     nothing
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/keys/1/    nothing
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/keys//1    nothing
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/%63hat/keys/1   no-id
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/Chat/keys/1     no-project
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/keys/%31   no-key
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/keys/01    no-key
/v1/admin/projects/{project}/keys/{key}  /v1/admin/projects/chat/keys/..    no-key
/v1/admin/projects/{project}/revocations  /v1/admin/projects/chat/%72evocations   nothing
/v1/admin/projects/{project}/revocations  /v1/admin/projects/chat/Revocations     nothing
/v1/admin/projects/{project}/revocations  /v1/admin/projects/chat/revocations/    nothing
/v1/admin/projects/{project}/revocations  /v1/admin/projects/chat//revocations    nothing
/v1/admin/projects/{project}/revocations  /v1/admin/projects/%63hat/revocations   no-id
/v1/admin/projects/{project}/revocations  /v1/admin/projects/Chat/revocations     no-project
/v1/admin/projects/{project}/tokens  /v1/admin/projects/chat/%74okens   nothing
/v1/admin/projects/{project}/tokens  /v1/admin/projects/chat/Tokens     nothing
/v1/admin/projects/{project}/tokens  /v1/admin/projects/chat/tokens/    nothing
/v1/admin/projects/{project}/tokens  /v1/admin/projects/chat//tokens    nothing
/v1/admin/projects/{project}/tokens  /v1/admin/projects/%63hat/tokens   no-id
/v1/admin/projects/{project}/tokens  /v1/admin/projects/Chat/tokens     no-project
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/chat/tokens/%69nspect   nothing
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/chat/tokens/Inspect     nothing
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/chat/tokens/inspect/    nothing
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/chat/tokens//inspect    nothing
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/chat/tokens%2Finspect   nothing
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/%63hat/tokens/inspect   no-id
/v1/admin/projects/{project}/tokens/inspect  /v1/admin/projects/Chat/tokens/inspect     no-project
";

/// The rows: the method, the path that is served, whichever for `*`, what the spelling comes to; and the status for each column.
const RIGHTS: &str = "
GET     *  nothing   404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404
HEAD    *  nothing   404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404
PUT     *  nothing   404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404
POST    *  nothing   404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404
DELETE  *  nothing   404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404
PATCH   *  nothing   404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404 404
OPTIONS *  nothing   204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     *  no-name   400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
HEAD    *  no-name   400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
PUT     *  no-name   400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
POST    *  no-name   400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
DELETE  *  no-name   400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400 400
PATCH   *  no-name   405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS *  no-name   204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/stream/{*path}  beside    401 401 401 401 401 404 403 403 404 404 404 401 401 401 401 401 400 404 401
HEAD    /v1/stream/{*path}  beside    401 401 401 401 401 404 403 403 404 404 404 401 401 401 401 401 400 404 401
PUT     /v1/stream/{*path}  beside    401 401 401 401 401 403 201 403 201 201 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  beside    401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  beside    401 401 401 401 401 403 404 403 404 404 403 401 401 401 401 401 400 401 401
PATCH   /v1/stream/{*path}  beside    405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/stream/{*path}  beside    204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/stream/{*path}  outside   401 401 401 401 401 404 403 403 404 404 404 401 401 401 401 401 400 404 401
HEAD    /v1/stream/{*path}  outside   401 401 401 401 401 404 403 403 404 404 404 401 401 401 401 401 400 404 401
PUT     /v1/stream/{*path}  outside   401 401 401 401 401 403 201 403 201 403 403 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  outside   401 401 401 401 401 403 404 403 404 403 403 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  outside   401 401 401 401 401 403 404 403 404 403 403 401 401 401 401 401 400 401 401
PATCH   /v1/stream/{*path}  outside   405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/stream/{*path}  outside   204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/stream/{*path}  homeless  401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 400 401 401
HEAD    /v1/stream/{*path}  homeless  401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 400 401 401
PUT     /v1/stream/{*path}  homeless  401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 400 401 401
POST    /v1/stream/{*path}  homeless  401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 400 401 401
DELETE  /v1/stream/{*path}  homeless  401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 401 400 401 401
PATCH   /v1/stream/{*path}  homeless  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/stream/{*path}  homeless  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
HEAD    /v1/admin/projects/{project}  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PUT     /v1/admin/projects/{project}  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
POST    /v1/admin/projects/{project}  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PATCH   /v1/admin/projects/{project}  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}  no-id     204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
HEAD    /v1/admin/projects/{project}/keys  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PUT     /v1/admin/projects/{project}/keys  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/keys  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/keys  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/keys  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys  no-id     204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys/{key}  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/keys/{key}  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/keys/{key}  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
POST    /v1/admin/projects/{project}/keys/{key}  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}/keys/{key}  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PATCH   /v1/admin/projects/{project}/keys/{key}  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys/{key}  no-id     204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/revocations  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/revocations  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/revocations  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/revocations  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/revocations  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/revocations  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/revocations  no-id     204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/tokens  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/tokens  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/tokens  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/tokens  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/tokens  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/tokens  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/tokens  no-id     204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/tokens/inspect  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/tokens/inspect  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/tokens/inspect  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/tokens/inspect  no-id     401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/tokens/inspect  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/tokens/inspect  no-id     405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/tokens/inspect  no-id     204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
HEAD    /v1/admin/projects/{project}  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PUT     /v1/admin/projects/{project}  no-project  401 401 401 401 401 401 401 401 401 401 401 400 401 401 401 401 401 401 401
POST    /v1/admin/projects/{project}  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PATCH   /v1/admin/projects/{project}  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}  no-project  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
HEAD    /v1/admin/projects/{project}/keys  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PUT     /v1/admin/projects/{project}/keys  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/keys  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/keys  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/keys  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys  no-project  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys/{key}  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/keys/{key}  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/keys/{key}  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
POST    /v1/admin/projects/{project}/keys/{key}  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}/keys/{key}  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
PATCH   /v1/admin/projects/{project}/keys/{key}  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys/{key}  no-project  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/revocations  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/revocations  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/revocations  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/revocations  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/revocations  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/revocations  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/revocations  no-project  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/tokens  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/tokens  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/tokens  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/tokens  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/tokens  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/tokens  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/tokens  no-project  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/tokens/inspect  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/tokens/inspect  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/tokens/inspect  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
POST    /v1/admin/projects/{project}/tokens/inspect  no-project  401 401 401 401 401 401 401 401 401 401 401 404 401 401 401 401 401 401 401
DELETE  /v1/admin/projects/{project}/tokens/inspect  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PATCH   /v1/admin/projects/{project}/tokens/inspect  no-project  405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/tokens/inspect  no-project  204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
GET     /v1/admin/projects/{project}/keys/{key}  no-key    405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
HEAD    /v1/admin/projects/{project}/keys/{key}  no-key    405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
PUT     /v1/admin/projects/{project}/keys/{key}  no-key    401 401 401 401 401 403 403 404 404 403 403 404 401 401 401 401 404 401 401
POST    /v1/admin/projects/{project}/keys/{key}  no-key    405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
DELETE  /v1/admin/projects/{project}/keys/{key}  no-key    401 401 401 401 401 403 403 404 404 403 403 404 401 401 401 401 404 401 401
PATCH   /v1/admin/projects/{project}/keys/{key}  no-key    405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405 405
OPTIONS /v1/admin/projects/{project}/keys/{key}  no-key    204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204 204
";

struct Spelling {
    path: &'static str,
    spelling: &'static str,
    is: &'static str,
}

fn spellings() -> Vec<Spelling> {
    let spelling = |line: &'static str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap();
        Spelling { path: word(), spelling: word(), is: word() }
    };
    SPELLINGS.trim().lines().map(spelling).collect()
}

/// What a spelling would be if all of it were decoded.
fn decoded(text: &str) -> String {
    let (first, rest) = text.split_once('%').unwrap_or((text, ""));
    match rest.split_at_checked(2) {
        Some((digits, rest)) => {
            let byte = u8::from_str_radix(digits, 16).unwrap();
            format!("{first}{}{}", char::from(byte), decoded(rest))
        }
        None => first.to_owned(),
    }
}

#[test]
fn every_path_has_spellings_of_each_kind_and_every_spelling_an_answer() {
    let all = spellings();
    for path in paths() {
        let right = filled(path);
        let own: BTreeSet<_> = all.iter().filter(|own| own.path == path).map(|own| own.spelling).collect();
        let others =
            |differs: &dyn Fn(&str) -> bool| own.iter().any(|spelling| *spelling != right && differs(spelling));
        assert!(
            others(&|spelling| spelling.len() != right.len() && decoded(spelling) == decoded(&right)),
            "encoded: {path}"
        );
        assert!(others(&|spelling| spelling.eq_ignore_ascii_case(&right)), "another case: {path}");
        assert!(own.contains(format!("{right}/").as_str()), "a slash behind it: {path}");
        assert!(
            others(&|spelling| spelling.contains("//") && spelling.replace("//", "/") == right),
            "a slash twice: {path}"
        );
    }
    let told: BTreeSet<_> = rows(RIGHTS).iter().map(|row| (row.method, row.path, row.subject)).collect();
    for Spelling { path, spelling, is } in &all {
        assert!(paths().any(|served| served == *path), "{path} is not served");
        for method in METHODS {
            let rows = [*path, "*"].iter().filter(|path| told.contains(&(method, *path, is))).count();
            assert_eq!(rows, 1, "{method} {spelling}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_spelling_is_another_name_or_none_for_everybody_at_every_listener() {
    let all_shown = WHO.map(shown);
    let rows: HashMap<_, _> = rows(RIGHTS).into_iter().map(|row| ((row.method, row.path, row.subject), row)).collect();
    for surface in SURFACES {
        let mut gateways = HashMap::new();
        for Spelling { path, spelling, is } in spellings() {
            let is = if paths_of(surface).any(|served| served == path) { is } else { "nothing" };
            let about = match is {
                "no-id" | "no-project" | "no-key" => "run-time",
                _ if path.starts_with("/v1/stream/") && surface != Surface::Operations => "private",
                _ => "-",
            };
            for method in METHODS {
                let row = [path, "*"].iter().find_map(|path| rows.get(&(method, *path, is))).unwrap();
                let row = Row { method, path, subject: about, statuses: row.statuses.clone() };
                for ((who, shown), status) in WHO.into_iter().zip(&all_shown).zip(&row.statuses) {
                    if !gateways.contains_key(about) {
                        gateways.insert(about, gateway_of(about, surface).await);
                    }
                    let gateway = &gateways[about];
                    let before = gateway.upstream.counts();
                    ask(gateway, &row, spelling, (who, shown), *status).await;
                    if ["nothing", "no-name", "homeless"].contains(&is) {
                        assert_eq!(
                            gateway.upstream.counts(),
                            before,
                            "{method} {spelling} by {who}: the store was asked"
                        );
                    }
                    // What was changed is not there for the next.
                    if (200..300).contains(status) && ["PUT", "POST", "DELETE"].contains(&method) {
                        gateways.remove(about);
                    }
                }
            }
        }
    }
}
