//! Metadata over HTTP are as new as the last commit, whoever wrote it.

use std::fs;
use std::net::SocketAddr;

use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::{http, objects, peers};

/// A client that asks a node for the metadata of one study again and again.
struct Client {
    node: SocketAddr,
    study: u32,
    tag: String,
}

impl Client {
    fn of(node: &Node, study: u32) -> Self {
        let node = node.listening["http_address"].as_str().unwrap().parse().unwrap();
        Self { node, study, tag: "\"none\"".to_owned() }
    }

    fn ask(&self, headers: &[(&str, &str)]) -> http::Answer {
        http::request(self.node, "GET", &format!("/dicom-web/studies/1.2.{}/metadata", self.study), headers, b"")
    }

    /// Expects an answer that is new to the client, with so many instances.
    #[track_caller]
    fn expect_news(&mut self, instances: usize) {
        let answer = self.ask(&[("If-None-Match", &self.tag)]).expect(200);
        assert_eq!(answer.json().as_array().unwrap().len(), instances);
        self.tag = answer.header("etag");
        self.expect_the_same(instances);
    }

    /// Expects that the client has the answer of now. It is asked for twice, so that memory
    /// answers.
    #[track_caller]
    fn expect_the_same(&self, instances: usize) {
        for _ in 0..2 {
            self.ask(&[("If-None-Match", &self.tag)]).expect(304);
            let whole = self.ask(&[]).expect(200);
            assert_eq!((whole.json().as_array().unwrap().len(), whole.header("etag")), (instances, self.tag.clone()));
        }
    }
}

/// Scans a tree into an index file, in a process of its own.
fn scan(place: &Place, file: &str, tree: &str) {
    place.run(["scan", "--prune", "--index", file, tree]).expect(0);
}

/// Changes the files below a node one after the other. Each has a tree of its own with one study.
fn follows_other_processes(place: &Place, index: &str, files: &[(&str, &str, u32)]) -> Node {
    let object = |tree: &str, number: u32| place.path(format!("{tree}/{number}.dcm"));
    for (file, tree, study) in files {
        objects::write(&object(tree, 1), *study, 1, 1);
        scan(place, file, tree);
    }
    let node = Node::start(place, &["--index", index, "--http-port", "0"]);
    let mut clients: Vec<_> = files.iter().map(|(.., study)| Client::of(&node, *study)).collect();
    clients.iter_mut().for_each(|client| client.expect_news(1));
    for ((file, tree, study), client) in files.iter().zip(&mut clients) {
        objects::write(&object(tree, 2), *study, 1, 2);
        scan(place, file, tree);
        client.expect_news(2);
        fs::remove_file(object(tree, 1)).unwrap();
        scan(place, file, tree);
        client.expect_news(1);
        // A commit that changes nothing of the study makes no news.
        scan(place, file, tree);
        client.expect_the_same(1);
    }
    clients.iter().for_each(|client| client.expect_the_same(1));
    node
}

/// Sends an instance of a study to the node.
fn store(place: &Place, node: &Node, study: u32, number: u32) -> Option<()> {
    let mut storescu = peers::dcmtk("storescu")?;
    objects::write(&place.path("object"), study, 1, number);
    storescu.args(["-aec", "DCMDEX", "127.0.0.1", &node.port.to_string()]).arg(place.path("object"));
    peers::run(&mut storescu).expect_success();
    Some(())
}

#[test]
fn metadata_follow_an_index_that_another_process_writes() {
    let place = Place::new();
    let node = follows_other_processes(&place, "index.db", &[("index.db", "one", 1)]);
    let mut client = Client::of(&node, 1);
    client.expect_news(1);
    if store(&place, &node, 1, 3).is_some() {
        client.expect_news(2);
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn metadata_follow_each_file_of_a_folder_and_files_that_come_and_go() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    let files = [("folder/main.db", "one", 1), ("folder/second.db", "two", 2)];
    let node = follows_other_processes(&place, "folder", &files);
    let mut clients = [Client::of(&node, 1), Client::of(&node, 2)];
    clients.iter_mut().for_each(|client| client.expect_news(1));
    // A file comes that has more of a study, and goes again.
    objects::write(&place.path("three/9.dcm"), 2, 1, 9);
    scan(&place, "third.db", "three");
    place.run(["index", "freeze", "third.db"]).expect(0);
    let carry = |from: &str, to: &str| {
        for name in ["third.db-frozen", "third.db"] {
            fs::rename(place.path(format!("{from}{name}")), place.path(format!("{to}{name}"))).unwrap();
        }
    };
    carry("", "folder/");
    clients[0].expect_the_same(1);
    clients[1].expect_news(2);
    carry("folder/", "");
    clients[1].expect_news(1);
    for (study, client) in (1..).zip(&mut clients) {
        if store(&place, &node, study, 3).is_some() {
            client.expect_news(2);
        }
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}
