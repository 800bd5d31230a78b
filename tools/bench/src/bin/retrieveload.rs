//! Retrieves a series or study by C-GET, throws the objects away and prints how fast they came.
//!
//! ```text
//! cargo run --release -p dcmdex-bench --bin retrieveload -- --to 127.0.0.1:11112 --called DCMDEX \
//!     --level STUDY --uid 1.2.3 --times 5
//! cargo run --release -p dcmdex-bench --bin retrieveload -- --copy DIRECTORY --times 5
//! ```
//!
//! `--copy` is the bound: it copies the files of a directory to a socket, one after the other.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use dicom_ul::pdu::{
    AssociationRQ, Pdu, PresentationContextProposed, RequestorRoles, UserVariableItem, read_pdu, write_pdu,
};

use dcmdex_bench::client::{self, COMMAND, DATA_SET, MAX_PDU, command, number, pdus};
use dcmdex_bench::header::element;

/// Measures C-GET.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    node: client::Node,
    /// STUDY, SERIES or IMAGE.
    #[arg(long, default_value = "STUDY")]
    level: String,
    /// The unique key of the level.
    #[arg(long, default_value = "")]
    uid: String,
    /// The SOP Class of the objects.
    #[arg(long, default_value = "1.2.840.10008.5.1.4.1.1.2")]
    class: String,
    /// The transfer syntax to propose for them.
    #[arg(long, default_value = "1.2.840.10008.1.2.1")]
    syntax: String,
    /// Copy the files of this directory to a socket instead.
    #[arg(long)]
    copy: Option<PathBuf>,
    /// Retrievals, one after the other on one association.
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// A name for the line that is printed.
    #[arg(long, default_value = "")]
    name: String,
}

/// One retrieval.
struct Run {
    objects: u64,
    bytes: u64,
    first: Duration,
    all: Duration,
}

fn main() {
    let options = Options::parse();
    let mut runs = Vec::new();
    if let Some(directory) = &options.copy {
        runs.extend((0..options.times).map(|_| copy(directory)));
    } else {
        let mut client = Client::open(&options);
        runs.extend((0..options.times).map(|_| client.get(&options)));
        client.send_pdu(&Pdu::ReleaseRQ);
    }
    runs.sort_by_key(|run| run.all);
    let median = &runs[runs.len() / 2];
    let first: Vec<_> = runs.iter().map(|run| run.first.as_secs_f64() * 1000.0).collect();
    let seconds = median.all.as_secs_f64();
    println!(
        "{{\"name\": \"{}\", \"objects\": {}, \"bytes\": {}, \"median_s\": {seconds:.4}, \"objects_per_s\": {:.0}, \
         \"gb_per_s\": {:.3}, \"first_ms\": {:.2}, \"first_max_ms\": {:.2}}}",
        options.name,
        median.objects,
        median.bytes,
        median.objects as f64 / seconds,
        median.bytes as f64 / seconds / 1e9,
        median.first.as_secs_f64() * 1000.0,
        first.iter().copied().fold(0.0, f64::max),
    );
}

/// Files to a socket, as plainly as it can be done.
fn copy(directory: &Path) -> Run {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let objects = files.len() as u64;
    let begun = Instant::now();
    let sender = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for file in files {
            io::copy(&mut File::open(file).unwrap(), &mut stream).unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).unwrap();
    let (mut buffer, mut bytes, mut first) = (vec![0; 256 * 1024], 0, Duration::ZERO);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        if bytes == 0 {
            first = begun.elapsed();
        }
        bytes += count as u64;
    }
    let all = begun.elapsed();
    sender.join().unwrap();
    Run { objects, bytes, first, all }
}

struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    fn open(options: &Options) -> Self {
        let stream = TcpStream::connect(&options.node.to).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self { stream: BufReader::with_capacity(256 * 1024, stream), body: Vec::new() };
        let context = |id, abstract_syntax: &str, transfer_syntax: &str| PresentationContextProposed {
            id,
            abstract_syntax: abstract_syntax.into(),
            transfer_syntaxes: vec![transfer_syntax.into()],
        };
        client.send_pdu(&Pdu::AssociationRQ(AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "BENCH".into(),
            called_ae_title: options.node.called.clone(),
            application_context_name: "1.2.840.10008.3.1.1.1".into(),
            presentation_contexts: vec![
                context(1, "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.1.2"),
                context(3, &options.class, &options.syntax),
            ],
            user_variables: vec![
                UserVariableItem::MaxLength(MAX_PDU),
                UserVariableItem::ImplementationClassUID("1.2.3".into()),
                UserVariableItem::ScuScpRoleSelectionSubItem(
                    options.class.clone(),
                    RequestorRoles { scu: true, scp: true },
                ),
            ],
        }));
        let kind = client.pdu();
        let mut whole = vec![kind, 0];
        whole.extend((client.body.len() as u32).to_be_bytes());
        whole.extend_from_slice(&client.body);
        match read_pdu(whole.as_slice(), 1 << 20, true).unwrap().unwrap() {
            Pdu::AssociationAC(_) => client,
            other => panic!("not accepted: {other:?}"),
        }
    }

    fn send_pdu(&mut self, pdu: &Pdu) {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).unwrap();
        self.stream.get_mut().write_all(&bytes).unwrap();
    }

    /// Reads the next PDU into `body`; its type.
    fn pdu(&mut self) -> u8 {
        let mut header = [0; 6];
        self.stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize;
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).unwrap();
        header[0]
    }

    fn get(&mut self, options: &Options) -> Run {
        let us = |value: u16| value.to_le_bytes();
        let request = command(&[
            (0x0002, b"1.2.840.10008.5.1.4.1.2.2.3"),
            (0x0100, &us(0x0010)),
            (0x0110, &us(1)),
            (0x0700, &us(0)),
            (0x0800, &us(1)),
        ]);
        let mut identifier = Vec::new();
        let tag = match options.level.as_str() {
            "STUDY" => 0x0020_000D,
            "SERIES" => 0x0020_000E,
            _ => 0x0008_0018,
        };
        let mut elements = [(0x0008_0052, "CS", options.level.as_bytes()), (tag, "UI", options.uid.as_bytes())];
        elements.sort_by_key(|element| element.0);
        for (tag, vr, value) in elements {
            element(&mut identifier, false, tag, vr, value);
        }
        let mut message = Vec::new();
        pdus(&mut message, 1, MAX_PDU as usize, COMMAND, &request);
        pdus(&mut message, 1, MAX_PDU as usize, DATA_SET, &identifier);
        let begun = Instant::now();
        self.stream.get_mut().write_all(&message).unwrap();
        let mut run = Run { objects: 0, bytes: 0, first: Duration::ZERO, all: Duration::ZERO };
        let (mut arriving, mut message_id) = (Vec::new(), 0);
        loop {
            assert_eq!(self.pdu(), 0x04, "not a P-DATA-TF");
            let mut rest = self.body.as_slice();
            let mut answer = None;
            while let Some((length, after)) = rest.split_first_chunk() {
                let (pdv, after) = after.split_at(u32::from_be_bytes(*length) as usize);
                rest = after;
                let (context, control, fragment) = (pdv[0], pdv[1], &pdv[2..]);
                if control & 1 == 0 {
                    if run.bytes == 0 {
                        run.first = begun.elapsed();
                    }
                    run.bytes += fragment.len() as u64;
                    if control & 2 == 2 && context != 1 {
                        run.objects += 1;
                        answer = Some(context);
                    } else if control & 2 == 2 {
                        panic!("some objects failed");
                    }
                    continue;
                }
                arriving.extend_from_slice(fragment);
                if control & 2 == 0 {
                    continue;
                }
                let command = std::mem::take(&mut arriving);
                let field = number(&command, 0x0100).unwrap();
                match (field, number(&command, 0x0900)) {
                    (0x0001, _) => message_id = number(&command, 0x0110).unwrap(),
                    (_, Some(0xFF00)) => {}
                    (_, Some(0)) => {
                        run.all = begun.elapsed();
                        return run;
                    }
                    (_, status) => panic!("ended with {status:04X?}"),
                }
            }
            if let Some(context) = answer {
                let response = command(&[
                    (0x0002, options.class.as_bytes()),
                    (0x0100, &us(0x8001)),
                    (0x0120, &us(message_id)),
                    (0x0800, &us(0x0101)),
                    (0x0900, &us(0)),
                ]);
                message.clear();
                pdus(&mut message, context, MAX_PDU as usize, COMMAND, &response);
                self.stream.get_mut().write_all(&message).unwrap();
            }
        }
    }
}
