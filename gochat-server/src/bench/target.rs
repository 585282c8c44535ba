//! The server under load: a throw-away one of our own, or one that runs already.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
};

use super::{
    Arguments, Fault,
    child::Server,
    usage::{self, Usage, Watched},
};
use crate::admin_client::Admin;

pub struct Target {
    /// Where clients connect: to one after the other, if there are several.
    pub addresses: Vec<SocketAddr>,
    admin: Option<Admin>,
    server: Option<Server>,
    /// The processes that can be looked at.
    processes: Vec<Watched>,
}

impl Target {
    /// The server that the arguments name, or a new one.
    pub fn of(arguments: &Arguments, folder: &Path) -> Result<Target, Fault> {
        if arguments.url.is_empty() {
            return Target::own(Server::start(folder)?);
        }
        let addresses = arguments.url.iter().map(|url| resolve(url)).collect::<Result<_, Fault>>()?;
        let admin = match (arguments.admin, &arguments.admin_token) {
            (Some(admin), Some(token)) => Some(Admin::at(admin, token.clone())),
            _ => None,
        };
        Ok(Target { addresses, admin, server: None, processes: arguments.server_pid.clone() })
    }

    fn own(server: Server) -> Result<Target, Fault> {
        let processes = vec![Watched { name: "server".into(), id: server.id() }];
        Ok(Target { addresses: vec![server.address], admin: Some(Admin::of(server.data())?), processes, server: Some(server) })
    }

    /// The first of its addresses.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// A server of our own is started anew, with the data that it has: then its memory holds nothing of what made them.
    pub fn restarted(self) -> Result<Target, Fault> {
        match self.server {
            Some(server) => Target::own(server.restart()?),
            None => Ok(self),
        }
    }

    /// Its admin listener.
    pub fn admin(&self) -> Result<&Admin, Fault> {
        self.admin.as_ref().ok_or_else(|| "this needs --admin and --admin-token".into())
    }

    /// What its processes have used so far, together, if they can be looked at.
    pub fn usage(&self) -> Option<Usage> {
        let used = self.processes.iter().map(|process| usage::of(process.id)).collect::<Option<Vec<_>>>().filter(|used| !used.is_empty())?;
        Some(Usage { cpu: used.iter().map(|used| used.cpu).sum(), resident: used.iter().map(|used| used.resident).sum() })
    }

    /// What each of several processes has used so far.
    pub fn usage_by_process(&self) -> Vec<(String, Usage)> {
        let several = self.processes.iter().filter(|_| self.processes.len() > 1);
        several.filter_map(|process| Some((process.name.clone(), usage::of(process.id)?))).collect()
    }
}

fn resolve(url: &str) -> Result<SocketAddr, Fault> {
    let name = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let mut addresses = name.to_socket_addrs().map_err(|error| format!("--url {url}: {error}; it is like http://127.0.0.1:8080"))?;
    addresses.next().ok_or_else(|| format!("--url {url} has no address").into())
}
