//! The server under load: a throw-away one of our own, or one that runs already.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
};

use super::{
    Arguments, Fault,
    child::Server,
    usage::{self, Usage},
};
use crate::admin_client::Admin;

pub struct Target {
    pub address: SocketAddr,
    admin: Option<Admin>,
    server: Option<Server>,
    /// The process, if it can be looked at.
    process: Option<u32>,
}

impl Target {
    /// The server that the arguments name, or a new one.
    pub fn of(arguments: &Arguments, folder: &Path) -> Result<Target, Fault> {
        let Some(url) = &arguments.url else { return Target::own(Server::start(folder)?) };
        let name = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let mut addresses = name.to_socket_addrs().map_err(|error| format!("--url {url}: {error}; it is like http://127.0.0.1:8080"))?;
        let admin = match (arguments.admin, &arguments.admin_token) {
            (Some(admin), Some(token)) => Some(Admin::at(admin, token.clone())),
            _ => None,
        };
        let address = addresses.next().ok_or_else(|| format!("--url {url} has no address"))?;
        Ok(Target { address, admin, server: None, process: arguments.server_pid })
    }

    fn own(server: Server) -> Result<Target, Fault> {
        Ok(Target { address: server.address, admin: Some(Admin::of(server.data())?), process: Some(server.id()), server: Some(server) })
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

    /// What the server has used so far, if it can be looked at.
    pub fn usage(&self) -> Option<Usage> {
        usage::of(self.process?)
    }
}
