//! A network whose cable can be pulled.

use std::process::Command;

use super::peers::skipped;

/// A network namespace that is linked with that of the tests. It goes when this is dropped.
pub(crate) struct FarNetwork {
    name: String,
    /// First bytes of the addresses of both ends.
    prefix: String,
}

impl FarNetwork {
    /// Makes one. `None`, with a message, if this user may not.
    pub(crate) fn make() -> Option<Self> {
        // Tests run in processes of their own. Each of them needs one at most.
        let id = std::process::id();
        let network = Self { name: format!("dcmdex{id}"), prefix: format!("10.{}.{}", 64 + id / 256 % 64, id % 256) };
        let Self { name, prefix } = &network;
        let (near, near_address) = (network.near(), format!("{prefix}.1/30"));
        let (far, far_address) = (network.far(), format!("{prefix}.2/30"));
        let is_made = ip(&["netns", "add", name])
            && ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", name])
            && ip(&["address", "add", &near_address, "dev", &near])
            && ip(&["link", "set", &near, "up"])
            && ip(&["-n", name, "address", "add", &far_address, "dev", &far])
            && ip(&["-n", name, "link", "set", &far, "up"]);
        if !is_made {
            skipped("this user may not make a network namespace; it needs root and iproute2");
            return None;
        }
        Some(network)
    }

    fn near(&self) -> String {
        format!("{}n", self.name)
    }

    fn far(&self) -> String {
        format!("{}f", self.name)
    }

    /// The address of programs that run in it.
    pub(crate) fn address(&self) -> String {
        format!("{}.2", self.prefix)
    }

    /// Words before the command line of a program that is to run in it.
    pub(crate) fn command(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Pulls the cable. What is sent from now on is lost, and nobody is told.
    pub(crate) fn cut(&self) {
        assert!(ip(&["-n", &self.name, "link", "set", &self.far(), "down"]));
    }

    /// Plugs the cable in again.
    pub(crate) fn join(&self) {
        assert!(ip(&["-n", &self.name, "link", "set", &self.far(), "up"]));
    }
}

impl Drop for FarNetwork {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}
