//! nginx between clients and gateways, as Debian ships it: one server that takes the gateways in turns, and one that
//! gives each stream to one of them by a consistent hash.
//!
//! A request to read goes to the next gateway when one cannot be reached or refuses for now; an append never does,
//! because nobody here can know what became of it. nginx stays one process, so that there is one to end.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::service::free_address;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);
/// How long a gateway that could not be reached is left alone: longer than a client waits that tries again.
const LEFT_ALONE: &str = "2s";
/// How many connections there can be, to both sides together.
const CONNECTIONS: usize = 18_000;

/// A running nginx. It is killed when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    _child: Child,
    fronts: Fronts,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fronts {
    /// Takes the gateways in turns.
    pub round_robin: SocketAddr,
    /// Gives each stream to one of them.
    pub hashed: SocketAddr,
}

impl Nginx {
    /// Starts it in front of these gateways, with all its files in `folder`.
    ///
    /// # Errors
    /// When it is not installed, or does not listen.
    pub async fn start(folder: &Path, pods: &[SocketAddr]) -> anyhow::Result<Self> {
        let program = find()?;
        let own = |n| free_address(Ipv4Addr::new(127, 1, 0, n));
        let fronts = Fronts { round_robin: own(1)?, hashed: own(2)? };
        let (config, log) = (folder.join("nginx.conf"), folder.join("nginx.log"));
        fs::write(&config, configuration(folder, pods, fronts))?;
        let mut command = Command::new(&program);
        command.arg("-p").arg(folder).arg("-c").arg(&config).arg("-e").arg(&log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{}", program.display()))?;
        let deadline = Instant::now() + START;
        for front in [fronts.round_robin, fronts.hashed] {
            while TcpStream::connect(front).await.is_err() {
                if child.try_wait()?.is_some() || Instant::now() > deadline {
                    bail!("nginx does not listen: {}", fs::read_to_string(&log).unwrap_or_default());
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(Self { _child: child, fronts })
    }

    /// Where it listens.
    #[must_use]
    pub fn fronts(&self) -> Fronts {
        self.fronts
    }
}

/// What NGINX_BIN names, or the program on the path. Debian puts it where not everybody looks.
fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("NGINX_BIN") {
        return Ok(PathBuf::from(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut programs = folders.map(|folder| folder.join("nginx"));
    programs.find(|program| program.is_file()).context("missing: nginx; install it with: apt-get install -y nginx")
}

/// The configuration.
#[must_use]
pub fn configuration(folder: &Path, pods: &[SocketAddr], fronts: Fronts) -> String {
    let folder = folder.display();
    let mut text = format!(
        "daemon off;\n\
         master_process off;\n\
         pid {folder}/nginx.pid;\n\
         events {{ worker_connections {CONNECTIONS}; }}\n\
         http {{\n\
         access_log off;\n\
         client_max_body_size 16m;\n\
         client_body_buffer_size 2m;\n\
         keepalive_requests 1000000;\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\n\
         proxy_buffering off;\n\
         proxy_connect_timeout 2s;\n\
         proxy_read_timeout 60s;\n"
    );
    for what in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        append(&mut text, format_args!("{what}_temp_path {folder}/{what};"));
    }
    for (name, rule, front) in
        [("round_robin", "", fronts.round_robin), ("hashed", "hash $uri consistent;", fronts.hashed)]
    {
        append(&mut text, format_args!("upstream {name} {{ {rule}"));
        for pod in pods {
            append(&mut text, format_args!("server {pod} max_fails=1 fail_timeout={LEFT_ALONE};"));
        }
        append(&mut text, format_args!("keepalive 64; }}"));
        append(&mut text, format_args!("server {{ listen {front} backlog=4096;"));
        append(&mut text, format_args!("location / {{"));
        append(&mut text, format_args!("error_page 418 = @append;"));
        append(&mut text, format_args!("if ($request_method = POST) {{ return 418; }}"));
        append(&mut text, format_args!("proxy_next_upstream error timeout http_502 http_503;"));
        append(&mut text, format_args!("proxy_pass http://{name}; }}"));
        append(&mut text, format_args!("location @append {{ proxy_next_upstream off; proxy_pass http://{name}; }} }}"));
    }
    text.push_str("}\n");
    text
}

fn append(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_servers_know_all_gateways_and_appends_are_never_sent_twice() {
        let addr = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let fronts = Fronts { round_robin: addr(1), hashed: addr(2) };
        let text = configuration(Path::new("folder"), &[addr(3), addr(4)], fronts);
        let once_each =
            ["server 127.0.0.1:3 max_fails", "server 127.0.0.1:4 max_fails", "@append { proxy_next_upstream off;"];
        for line in once_each {
            assert_eq!(text.matches(line).count(), 2, "{line}");
        }
        for line in ["listen 127.0.0.1:1 ", "listen 127.0.0.1:2 ", "hash $uri consistent;"] {
            assert_eq!(text.matches(line).count(), 1, "{line}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
