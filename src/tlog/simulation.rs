//! Several processes on one log, in a bucket that fails in every way, one step at a time.
//!
//! Each process has its sequencer and its publisher on threads of their own, but only one thread runs at a time: each stops
//! before every request to the bucket, and a seed decides who goes on, and what becomes of the request. So every
//! interleaving of requests can happen, and one that breaks something happens again with its seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::handover::Taker;
use super::publisher::{Publisher, Urgency};
use super::tests::{PlainFormat, Text, key};
use super::tile::TILE_WIDTH;
use super::tree::CompactRange;
use super::*;
use crate::clock::FixedClock;
use crate::random::SeededRandom;
use crate::store::ObjectStorage;
use crate::store::faulty::{Fault, FaultyObjects, Request};

/// A thread of a process.
type ActorId = usize;

/// What an actor tells the scheduler; it runs no further then.
#[derive(Debug)]
enum Event {
    /// It is about to make a request.
    Asks(ActorId, Request, String),
    /// It has done what it was told.
    Idle(ActorId),
    /// It is gone, with its process.
    Gone(ActorId),
}

/// What becomes of a request.
#[derive(Debug)]
enum Grant {
    Do(Option<Fault>),
    /// The process dies here.
    Die,
}

/// By what an actor's thread knows itself, and the scheduler.
struct Baton {
    actor: ActorId,
    events: Sender<Event>,
    grants: Receiver<Grant>,
}

thread_local! {
    static BATON: RefCell<Option<Baton>> = const { RefCell::new(None) };
}

/// The end of an actor whose process was killed.
struct Killed;

/// What a thread that is an actor does before each request; others ask as they like.
fn decide(request: Request, name: &str) -> Option<Fault> {
    BATON.with_borrow_mut(|baton| {
        let baton = baton.as_mut()?;
        let ask = Event::Asks(baton.actor, request, name.to_owned());
        baton.events.send(ask).unwrap();
        match baton.grants.recv() {
            Ok(Grant::Do(fault)) => fault,
            Ok(Grant::Die) | Err(_) => resume_unwind(Box::new(Killed)),
        }
    })
}

type Work = Box<dyn FnOnce() + Send>;

struct Actor {
    process: usize,
    grants: Sender<Grant>,
    work: Sender<Work>,
    state: ActorState,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum ActorState {
    Idle,
    Asking(Request, String),
    Gone,
}

/// A process of the log, as far as it has come up.
struct Process {
    clock: Arc<FixedClock>,
    shared: Option<Arc<Shared>>,
    parts: Arc<Mutex<Option<Started>>>,
    booting: Option<ActorId>,
    writer: Option<ActorId>,
    publisher: Option<ActorId>,
    sequencer: Arc<Mutex<Option<Sequencer>>>,
    publishing: Arc<Mutex<Option<Publishing>>>,
    waiting: Vec<oneshot::Receiver<Result<Position, AppendError>>>,
    contents: Vec<String>,
    /// What its readers saw last.
    seen: Option<checkpoint::TreeHead>,
    starts: u64,
}

/// A publisher, and where its segments come from.
type Publishing = (Publisher, Taker<Committed>);

/// What a start gives.
type Started = Result<(Arc<Shared>, Sequencer, Publisher, Taker<Committed>), LogError>;

/// The log as the bucket has it, read beside the processes.
#[derive(Default)]
struct Model {
    next_number: u64,
    range: CompactRange,
    /// By size.
    roots: HashMap<u64, Hash>,
    entries: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
    timestamps: Vec<u64>,
}

struct World {
    seed: u64,
    random: SeededRandom,
    objects: Arc<FaultyObjects>,
    storage: ObjectStorage,
    processes: Vec<Process>,
    actors: Vec<Actor>,
    events: (Sender<Event>, Receiver<Event>),
    model: Model,
    /// What was promised: index → content.
    promised: BTreeMap<u64, String>,
    stored: Option<checkpoint::TreeHead>,
    checkpoints_seen: usize,
    fatal: Arc<Mutex<Vec<String>>>,
    entries: u64,
    has_faults: bool,
    refused_starts: u64,
}

impl World {
    fn new(seed: u64, processes: usize) -> Self {
        let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z"));
        let objects = FaultyObjects::new(Arc::clone(&clock) as Arc<dyn Clock>, decide);
        let storage = ObjectStorage::on(objects.clone());
        let mut world = Self {
            seed,
            random: SeededRandom::new(seed),
            objects,
            storage,
            processes: Vec::new(),
            actors: Vec::new(),
            events: channel(),
            model: Model::default(),
            promised: BTreeMap::new(),
            stored: None,
            checkpoints_seen: 0,
            fatal: Arc::default(),
            entries: 0,
            has_faults: true,
            refused_starts: 0,
        };
        world.model.roots.insert(0, tree::empty_root());
        // The first is the store's own; the others are a little off.
        for number in 0..processes {
            let process_clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z"));
            if number > 0 {
                process_clock.advance(Duration::from_millis(world.below(1500)));
            }
            let clock = if number == 0 {
                Arc::clone(&clock)
            } else {
                process_clock
            };
            world.processes.push(Process {
                clock,
                shared: None,
                parts: Arc::default(),
                booting: None,
                writer: None,
                publisher: None,
                sequencer: Arc::default(),
                publishing: Arc::default(),
                waiting: Vec::new(),
                contents: Vec::new(),
                seen: None,
                starts: 0,
            });
        }
        Log::create(&world.parts(0)).unwrap();
        world
    }

    fn parts(&self, process: usize) -> LogParts {
        let state = &self.processes[process];
        let fatal = Arc::clone(&self.fatal);
        LogParts {
            store: Arc::new(self.storage.clone()),
            key: key(0x11),
            format: Arc::new(PlainFormat),
            clock: Arc::clone(&state.clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::new(
                self.seed ^ (process as u64) << 32 ^ state.starts << 48,
            )),
            high_water: None,
            timing: Timing {
                append: Duration::from_secs(3600),
                growth: Duration::from_secs(1),
                heartbeat: Duration::from_secs(20),
                commit: Duration::ZERO,
                backoff: Duration::ZERO,
                pause: 0.0,
            },
            metrics: None,
            on_fatal: Arc::new(move |why| fatal.lock().unwrap().push(why.to_owned())),
        }
    }

    fn below(&self, end: u64) -> u64 {
        let mut octets = [0; 8];
        self.random.fill(&mut octets).unwrap();
        u64::from_le_bytes(octets) % end
    }

    fn pick<T>(&self, items: &[T]) -> usize {
        self.below(items.len() as u64) as usize
    }

    /// Starts a thread that works when it is told to.
    fn spawn(&mut self, process: usize) -> ActorId {
        let actor = self.actors.len();
        let (grants, granted) = channel();
        let (work, works) = channel::<Work>();
        let events = self.events.0.clone();
        let run = move || {
            BATON.set(Some(Baton {
                actor,
                events: events.clone(),
                grants: granted,
            }));
            for work in works {
                let done = catch_unwind(AssertUnwindSafe(work));
                match done {
                    Ok(()) => events.send(Event::Idle(actor)).unwrap(),
                    Err(cause) if cause.is::<Killed>() => {
                        let _ = events.send(Event::Gone(actor));
                        return;
                    }
                    Err(cause) => {
                        let _ = events.send(Event::Gone(actor));
                        resume_unwind(cause);
                    }
                }
            }
        };
        thread::Builder::new()
            .name(format!("process {process}, actor {actor}"))
            .spawn(run)
            .unwrap();
        self.actors.push(Actor {
            process,
            grants,
            work,
            state: ActorState::Idle,
        });
        actor
    }

    /// Lets an actor run until it stops again.
    fn wait_for(&mut self, actor: ActorId) {
        let event = self.events.1.recv_timeout(Duration::from_secs(30));
        let (who, state) = match event.expect("an actor hangs") {
            Event::Asks(who, request, name) => (who, ActorState::Asking(request, name)),
            Event::Idle(who) => (who, ActorState::Idle),
            Event::Gone(who) => (who, ActorState::Gone),
        };
        assert_eq!(who, actor, "only one runs at a time");
        self.actors[actor].state = state;
    }

    fn tell(&mut self, actor: ActorId, work: Work) {
        self.actors[actor].work.send(work).unwrap();
        self.wait_for(actor);
    }

    fn grant(&mut self, actor: ActorId) {
        let ActorState::Asking(request, name) = self.actors[actor].state.clone() else {
            return;
        };
        let fault = self.fault(request, &name);
        self.actors[actor].grants.send(Grant::Do(fault)).unwrap();
        self.wait_for(actor);
    }

    fn fault(&self, request: Request, name: &str) -> Option<Fault> {
        if !self.has_faults || self.below(100) >= 6 {
            return None;
        }
        let faults: &[Fault] = match request {
            Request::Put => &[
                Fault::Before,
                Fault::After,
                Fault::Late,
                Fault::Retried,
                Fault::Conflict,
            ],
            Request::Get if name.starts_with("journal/") && name != "journal/owner" => {
                &[Fault::Before, Fault::Partial, Fault::Missing]
            }
            Request::Get => &[Fault::Before, Fault::Partial],
        };
        Some(faults[self.pick(faults)])
    }

    /// Lets a process start.
    fn start(&mut self, process: usize) {
        self.processes[process].starts += 1;
        let parts = self.parts(process);
        let started = Arc::new(Mutex::new(None));
        self.processes[process].parts = Arc::clone(&started);
        let actor = self.spawn(process);
        self.processes[process].booting = Some(actor);
        self.tell(
            actor,
            Box::new(move || {
                let start = || -> Started {
                    let shared = Arc::new(Shared::new(parts));
                    let recovered = recovery::recover(&shared)?;
                    let mut publisher = recovered.publisher;
                    publisher.turn(Urgency::Now)?;
                    let (to_publisher, from_sequencer, _) = handover();
                    let sequencer = Sequencer::new(
                        Arc::clone(&shared),
                        recovered.journal,
                        recovered.tip,
                        to_publisher,
                    );
                    Ok((shared, sequencer, publisher, from_sequencer))
                };
                let outcome = start();
                *started.lock().unwrap() = Some(outcome);
            }),
        );
    }

    /// Sees to processes whose start is over.
    fn finish_start(&mut self, process: usize) {
        let Some(actor) = self.processes[process].booting else {
            return;
        };
        if self.actors[actor].state != ActorState::Idle {
            return;
        }
        self.processes[process].booting = None;
        let started = self.processes[process]
            .parts
            .lock()
            .unwrap()
            .take()
            .unwrap();
        match started {
            Ok((shared, sequencer, publisher, taker)) => {
                let publisher_actor = self.spawn(process);
                let state = &mut self.processes[process];
                state.shared = Some(shared);
                *state.sequencer.lock().unwrap() = Some(sequencer);
                *state.publishing.lock().unwrap() = Some((publisher, taker));
                state.writer = Some(actor);
                state.publisher = Some(publisher_actor);
                state.seen = None;
            }
            Err(LogError::Store(StoreError::Unanswered(_))) => self.refused_starts += 1,
            // A read that does not find what is there may be taken for damage; the next start sees.
            Err(LogError::RolledBack { .. } | LogError::Store(StoreError::Damaged(_)))
                if self.has_faults =>
            {
                self.refused_starts += 1;
            }
            Err(error) => panic!("seed {}: a sound log is refused: {error}", self.seed),
        }
    }

    /// Kills a process, in the middle of whatever it does.
    fn kill(&mut self, process: usize) {
        for actor in 0..self.actors.len() {
            if self.actors[actor].process != process {
                continue;
            }
            match self.actors[actor].state {
                ActorState::Gone => {}
                ActorState::Idle => {
                    // Its channel closes with this.
                    self.actors[actor].work = channel().0;
                    self.actors[actor].state = ActorState::Gone;
                }
                ActorState::Asking(..) => {
                    self.actors[actor].grants.send(Grant::Die).unwrap();
                    self.wait_for(actor);
                }
            }
        }
        let state = &mut self.processes[process];
        state.shared = None;
        state.booting = None;
        state.writer = None;
        state.publisher = None;
        state.sequencer = Arc::default();
        state.publishing = Arc::default();
        state.waiting.clear();
        state.contents.clear();
        state.seen = None;
    }

    fn is_up(&self, process: usize) -> bool {
        self.processes[process].shared.is_some()
    }

    fn is_idle(&self, actor: Option<ActorId>) -> bool {
        actor.is_some_and(|actor| self.actors[actor].state == ActorState::Idle)
    }

    /// Lets the sequencer of a process have some entries.
    fn append(&mut self, process: usize) {
        let writer = self.processes[process].writer;
        if !self.is_idle(writer) {
            return;
        }
        let count = 1 + if self.below(8) == 0 {
            self.below(120)
        } else {
            self.below(4)
        };
        let mut batch = VecDeque::new();
        for _ in 0..count {
            let content = format!("entry {} of process {process}", self.entries);
            self.entries += 1;
            let (done, answer) = oneshot::channel();
            let entry = Box::new(Text(content.clone().into_bytes()));
            batch.push_back(Pending { entry, done });
            self.processes[process].waiting.push(answer);
            self.processes[process].contents.push(content);
        }
        let sequencer = Arc::clone(&self.processes[process].sequencer);
        let work = move || {
            let taken = sequencer.lock().unwrap().take();
            let mut taken = taken.unwrap();
            taken.sequence(batch);
            *sequencer.lock().unwrap() = Some(taken);
        };
        self.tell(writer.unwrap(), Box::new(work));
    }

    /// Lets the publisher of a process have its turn.
    fn publish(&mut self, process: usize, urgency: Urgency) {
        let publisher = self.processes[process].publisher;
        if !self.is_idle(publisher) {
            return;
        }
        let publishing = Arc::clone(&self.processes[process].publishing);
        let fatal = Arc::clone(&self.fatal);
        let work = move || {
            let taken = publishing.lock().unwrap().take();
            let (mut publisher, taker) = taken.unwrap();
            publisher.receive(taker.all(Duration::ZERO).items);
            match publisher.turn(urgency) {
                Ok(_) | Err(PublishError::Sign(_)) => {}
                Err(PublishError::Store(error)) if error.is_passing() => {}
                Err(error) => fatal.lock().unwrap().push(format!("{error:?}")),
            }
            *publishing.lock().unwrap() = Some((publisher, taker));
        };
        self.tell(publisher.unwrap(), Box::new(work));
    }

    fn step(&mut self) {
        for state in &self.processes {
            let passed = 1 + self.below(40);
            // Clocks drift by some hundredths.
            state.clock.advance(Duration::from_millis(passed.max(15)));
        }
        for process in 0..self.processes.len() {
            self.finish_start(process);
        }
        let asking: Vec<ActorId> = (0..self.actors.len())
            .filter(|actor| matches!(self.actors[*actor].state, ActorState::Asking(..)))
            .collect();
        let process = self.pick(&self.processes);
        match self.below(100) {
            0..60 if !asking.is_empty() => {
                let actor = asking[self.pick(&asking)];
                self.grant(actor);
            }
            60..75 => self.append(process),
            75..90 => self.publish(process, Urgency::Paced),
            90..93 if self.objects.late() > 0 => {
                let late = self.below(self.objects.late() as u64) as usize;
                self.objects.apply_late(late);
            }
            93..96 => self.read(process),
            96 if self.has_faults && self.below(3) == 0 => self.kill(process),
            _ if !self.is_up(process) && self.processes[process].booting.is_none() => {
                self.start(process);
            }
            _ => {
                if let Some(actor) = asking.first() {
                    self.grant(*actor);
                }
            }
        }
        self.check();
    }

    /// Holds what everybody can see to what was seen before.
    fn check(&mut self) {
        let seed = self.seed;
        assert_eq!(*self.fatal.lock().unwrap(), [""; 0], "seed {seed}");
        self.read_journal();
        self.collect_promises();

        // I4, I5, I6 for what is stored.
        let checkpoints = self.objects.history("checkpoint");
        for note in &checkpoints[self.checkpoints_seen..] {
            let head = key(0x11).identity().verify(note).unwrap();
            self.check_head(head);
            if let Some(before) = self.stored {
                assert!(
                    head.size >= before.size && head.timestamp > before.timestamp,
                    "seed {seed}: {head:?} after {before:?}"
                );
            }
            self.stored = Some(head);
        }
        self.checkpoints_seen = checkpoints.len();

        // I1, I5 for what each process shows.
        for process in 0..self.processes.len() {
            let Some(shared) = &self.processes[process].shared else {
                continue;
            };
            let Some(head) = shared.view.load().as_ref().map(|view| view.head) else {
                continue;
            };
            self.check_head(head);
            if let Some(before) = self.processes[process].seen {
                assert!(
                    head.size >= before.size && head.timestamp >= before.timestamp,
                    "seed {seed}: process {process} shows {head:?} after {before:?}"
                );
            }
            let stored = self.stored.unwrap();
            assert!(
                head.timestamp <= stored.timestamp,
                "seed {seed}: process {process} shows what is not published"
            );
            self.processes[process].seen = Some(head);
        }
    }

    /// One root a size, and no entry later than its head.
    fn check_head(&self, head: checkpoint::TreeHead) {
        let seed = self.seed;
        assert_eq!(
            self.model.roots.get(&head.size),
            Some(&head.root),
            "seed {seed}: a fork at {}",
            head.size
        );
        let last = head.size.checked_sub(1);
        let newest = last.map_or(0, |last| self.model.timestamps[last as usize]);
        assert!(head.timestamp >= newest, "seed {seed}: {head:?}, {newest}");
    }

    /// Reads what is in the journal now: dense, signed, chained.
    fn read_journal(&mut self) {
        loop {
            let segments = self.storage.segments(self.model.next_number).unwrap();
            if segments.is_empty() {
                return;
            }
            for bytes in segments {
                let segment = journal::Segment::decode(&bytes).unwrap();
                segment.verify_signature(key(0x11).identity()).unwrap();
                assert_eq!(segment.number, self.model.next_number);
                assert_eq!(segment.first_index, self.model.leaves.len() as u64);
                for leaf in segment.leaf_hashes(&PlainFormat).unwrap() {
                    self.model.range.push(leaf);
                    self.model.leaves.push(leaf);
                    self.model.timestamps.push(segment.timestamp);
                }
                assert!(self.model.timestamps.is_sorted());
                self.model.entries.extend(segment.entries);
                let size = self.model.leaves.len() as u64;
                self.model.roots.insert(size, self.model.range.root());
                self.model.next_number += 1;
            }
        }
    }

    /// What was promised is in the journal at that very moment, and each place was promised once.
    fn collect_promises(&mut self) {
        let seed = self.seed;
        for process in &mut self.processes {
            let answers = std::mem::take(&mut process.waiting);
            let contents = std::mem::take(&mut process.contents);
            for (mut answer, content) in answers.into_iter().zip(contents) {
                match answer.try_recv() {
                    Ok(Ok(position)) => {
                        let entry = &self.model.entries[position.index as usize];
                        let expected = Text(content.clone().into_bytes()).encode(position);
                        assert_eq!(*entry, expected, "seed {seed}: another entry was logged");
                        let before = self.promised.insert(position.index, content);
                        assert_eq!(before, None, "seed {seed}: one place for two");
                    }
                    Ok(Err(AppendError::Unavailable(_))) => {}
                    Ok(Err(error)) => panic!("seed {seed}: {error}"),
                    Err(oneshot::error::TryRecvError::Empty) => {
                        process.waiting.push(answer);
                        process.contents.push(content);
                    }
                    Err(oneshot::error::TryRecvError::Closed) => {}
                }
            }
        }
    }

    /// Reads something of what a process shows.
    fn read(&mut self, process: usize) {
        let Some(shared) = self.processes[process].shared.clone() else {
            return;
        };
        let view = shared.view.load_full();
        let Some(view) = view.filter(|view| view.head.size > 0) else {
            return;
        };
        let index = self.below(view.head.size);
        let tile = index / TILE_WIDTH;
        let first = tile * TILE_WIDTH;
        let width = (view.head.size - first).min(TILE_WIDTH);
        let width = 1 + self.below(width);
        let read = |kind| {
            let path = TilePath::of_width(kind, tile, width);
            view.tile(path, &shared.parts).unwrap().unwrap()
        };
        let range = first as usize..(first + width) as usize;
        assert_eq!(
            read(TileKind::Hashes(0)),
            self.model.leaves[range.clone()].concat(),
            "seed {}",
            self.seed
        );
        assert_eq!(
            read(TileKind::Data),
            self.model.entries[range].concat(),
            "seed {}",
            self.seed
        );
    }

    /// Derives the stored tiles again from the entries: every full one is there, was written once, and is what it should be.
    fn check_all(&self) {
        let seed = self.seed;
        let size = self.stored.unwrap().size;
        let mut level = self.model.leaves[..size as usize].to_vec();
        let mut number = 0;
        while level.len() >= 256 {
            let full = level.chunks_exact(256);
            for (tile, hashes) in full.clone().enumerate() {
                let path = TilePath::full(TileKind::Hashes(number), tile as u64).to_string();
                let history = self.objects.history(&path);
                assert_eq!(history, [hashes.concat()], "seed {seed}: {path}");
            }
            level = full
                .map(|hashes| tile::perfect_root(&hashes.concat()))
                .collect();
            number += 1;
        }
        let entries = &self.model.entries[..size as usize];
        for (tile, entries) in entries.chunks_exact(256).enumerate() {
            let path = TilePath::full(TileKind::Data, tile as u64).to_string();
            assert_eq!(
                self.objects.history(&path),
                [entries.concat()],
                "seed {seed}: {path}"
            );
        }
        for (name, _) in self.objects.content() {
            if name.starts_with("journal/") || name.starts_with("tile/") {
                assert_eq!(self.objects.history(&name).len(), 1, "seed {seed}: {name}");
            }
        }
    }

    /// Without faults and with everybody up, everything that was promised is published in the end.
    fn settle(&mut self) {
        self.has_faults = false;
        while self.objects.late() > 0 {
            self.objects.apply_late(0);
        }
        let finish = |world: &mut Self| {
            for _ in 0..100_000 {
                for process in 0..world.processes.len() {
                    world.finish_start(process);
                }
                let asking = |actor: &Actor| matches!(actor.state, ActorState::Asking(..));
                match world.actors.iter().position(asking) {
                    Some(actor) => world.grant(actor),
                    None => return,
                }
                world.check();
            }
            panic!("seed {}: an actor never comes to its end", world.seed);
        };
        finish(self);
        for process in 0..self.processes.len() {
            if !self.is_up(process) {
                self.start(process);
                finish(self);
            }
            assert!(self.is_up(process), "seed {}", self.seed);
        }
        for _ in 0..3 {
            for process in 0..self.processes.len() {
                self.publish(process, Urgency::Now);
                finish(self);
            }
        }
        self.check_all();
        let published = self.stored.unwrap().size;
        assert_eq!(
            published,
            self.model.leaves.len() as u64,
            "seed {}",
            self.seed
        );
        for process in &self.processes {
            let head = process.seen.unwrap();
            assert_eq!(head.size, published, "seed {}: one is behind", self.seed);
        }
        for (index, content) in &self.promised {
            let entry = &self.model.entries[*index as usize];
            assert!(entry.ends_with(content.as_bytes()), "seed {}", self.seed);
        }
        for process in 0..self.processes.len() {
            self.kill(process);
        }
    }
}

/// Runs so many steps from a seed, and returns how many entries were promised.
fn simulate(seed: u64, steps: u64) -> usize {
    let mut world = World::new(seed, 1 + (seed % 4) as usize);
    for step in 1..=steps {
        world.step();
        if step % 1000 == 0 {
            world.check_all();
        }
    }
    world.settle();
    world.promised.len()
}

/// `MAYFLY_SEED=7 cargo test --lib simulation` runs that seed alone, and `MAYFLY_STEPS` says for how many steps.
#[test]
fn processes_that_share_a_log_neither_fork_it_nor_lose_anything_whatever_the_bucket_does() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let steps = number("MAYFLY_STEPS").unwrap_or(5000);
    if let Some(seed) = number("MAYFLY_SEED") {
        simulate(seed, steps);
        return;
    }
    let mut promised = 0;
    for seed in 1..=20 {
        let outcome = catch_unwind(|| simulate(seed, steps));
        promised += outcome.unwrap_or_else(|cause| {
            eprintln!("seed {seed} fails: MAYFLY_SEED={seed} MAYFLY_STEPS={steps}");
            resume_unwind(cause)
        });
    }
    assert!(promised > 1000, "only {promised} entries were promised");
}
