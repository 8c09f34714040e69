//! Processes that `mpirun` started, as a [`Collective`].
//!
//! One thread makes all calls of MPI. The others wait for it with a limit, so that a process that has been told to end
//! while it waits for one that has died can still say so.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use firebrick_core::{
    layers::split::Split,
    parallel::{Collective, Lost},
};
use firebrick_train::team::Team;
use mpi::{
    Threading,
    collective::SystemOperation,
    topology::{Color, Communicator, SimpleCommunicator},
    traits::CommunicatorCollectives,
};

/// How often a wait looks at the stop flag.
const LOOK: Duration = Duration::from_millis(20);

/// All processes of the job.
pub struct Job {
    link: Arc<Link>,
    thread: JoinHandle<()>,
    rank: usize,
    size: usize,
}

type Work = Box<dyn FnOnce(&mut Groups) + Send>;

/// The way to the thread that calls MPI.
struct Link {
    work: Mutex<Option<Sender<Work>>>,
    /// Set from outside when this process has to end.
    stop: Arc<AtomicBool>,
    /// From then on, how long it may wait for the others.
    grace: Duration,
    broken: AtomicBool,
}

/// What the thread holds.
struct Groups {
    communicators: Vec<SimpleCommunicator>,
    /// Takes the sums; the numbers that were given take its place.
    spare: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("MPI has been started in this process before")]
    Twice,
    #[error(
        "`train.tensor_parallel` is {tensor_parallel}, and does not divide the {processes} processes"
    )]
    Uneven { tensor_parallel: usize, processes: usize },
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("no thread for MPI")]
    Thread(#[from] std::io::Error),
}

impl Job {
    /// Joins the processes that `mpirun` started. Once `stop` is set, nothing waits longer than `grace` for them.
    pub fn join(stop: Arc<AtomicBool>, grace: Duration) -> Result<Self, JoinError> {
        let (work, jobs) = mpsc::channel::<Work>();
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new().name("mpi".into()).spawn(move || {
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                return; // `ready` is dropped
            };
            let world = universe.world();
            let _ = ready.send((world.rank() as usize, world.size() as usize));
            let mut groups = Groups { communicators: vec![world], spare: vec![] };
            jobs.into_iter().for_each(|work| work(&mut groups));
        })?;
        let (rank, size) = started.recv().map_err(|_| JoinError::Twice)?;
        let work = Mutex::new(Some(work));
        let link = Link { work, stop, grace, broken: AtomicBool::new(false) };
        Ok(Self { link: Arc::new(link), thread, rank, size })
    }

    /// All processes, each `tensor_parallel` neighbours with one model between them.
    pub fn team(&self, tensor_parallel: usize) -> Result<Team, JoinError> {
        if !self.size.is_multiple_of(tensor_parallel) {
            return Err(JoinError::Uneven { tensor_parallel, processes: self.size });
        }
        let world = Group { link: self.link.clone(), number: 0, rank: self.rank, size: self.size };
        let world: Arc<dyn Collective> = Arc::new(world);
        if tensor_parallel == 1 {
            return Ok(Team::data_parallel(world));
        }
        let data = Arc::new(self.group(self.rank % tensor_parallel)?);
        let model = Split::over(Arc::new(self.group(self.rank / tensor_parallel)?));
        Ok(Team { world, data, model })
    }

    /// Those that name the same number. All processes call it.
    fn group(&self, color: usize) -> Result<Group, JoinError> {
        let (number, rank, size) = self.link.ask(self.rank, move |groups| {
            let color = Color::with_value(color as i32);
            let group = groups.communicators[0].split_by_color(color).expect("it has a color");
            let place = (groups.communicators.len(), group.rank(), group.size());
            groups.communicators.push(group);
            place
        })?;
        Ok(Group { link: self.link.clone(), number, rank: rank as usize, size: size as usize })
    }

    /// Waits until all processes leave. One that ends without it is taken for dead.
    pub fn leave(self) {
        self.link.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !self.link.broken.load(Ordering::Relaxed) {
            let _ = self.thread.join();
        }
    }
}

/// Some processes of the job.
struct Group {
    link: Arc<Link>,
    /// Of its communicator.
    number: usize,
    rank: usize,
    size: usize,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

impl Collective for Group {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, x: Vec<f32>) -> Result<Vec<f32>, Lost> {
        let number = self.number;
        self.link.ask(self.rank, move |groups| {
            let mut sum = std::mem::take(&mut groups.spare);
            sum.resize(x.len(), 0.0);
            let group = &groups.communicators[number];
            group.all_reduce_into(&x[..], &mut sum[..], SystemOperation::sum());
            groups.spare = x;
            sum
        })
    }
}

impl Link {
    /// Has the thread do `work` and waits for what it gives.
    fn ask<T: Send + 'static>(
        &self,
        rank: usize,
        work: impl FnOnce(&mut Groups) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let lost = |why: &str| {
            self.broken.store(true, Ordering::Relaxed);
            Err(Lost(format!("rank {rank}: {why}")))
        };
        if self.broken.load(Ordering::Relaxed) {
            return lost("the connection to the other processes is gone");
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let work: Work = Box::new(move |groups| {
            let _ = reply.send(work(groups));
        });
        let ended = "the thread that speaks to the other processes has ended";
        let sender = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if sender.is_none_or(|sender| sender.send(work).is_err()) {
            return lost(ended);
        }
        let mut told = None;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(sum) => return Ok(sum),
                Err(RecvTimeoutError::Disconnected) => return lost(ended),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.stop.load(Ordering::Relaxed) {
                let told = *told.get_or_insert_with(Instant::now);
                if told.elapsed() >= self.grace {
                    return lost(
                        "told to end while it waited for the other processes, and one of them does not \
                         answer: it has died, or its step takes longer than mpirun waits before it kills; \
                         the same command continues from the last checkpoint, on any number of processes",
                    );
                }
            }
        }
    }
}
