//! The processes that `mpirun` started together with this one.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use firebrick_core::parallel::Lost;
use firebrick_train::{run::RunInfo, team::Team};

use crate::failure::{BAD_FILE, Failure, USAGE};
#[cfg(feature = "mpi")]
use crate::mpi::Job;

/// This process among them.
pub struct World {
    pub team: Team,
    /// `None` in a process that is alone.
    job: Option<Job>,
    stop: Arc<AtomicBool>,
}

impl World {
    /// Joins the others, if there are any. `stop` is set when the process is told to end.
    pub fn join(stop: &Arc<AtomicBool>) -> Result<Self, Failure> {
        // Set by Open MPI, by MPICH and by Slurm in the processes that they start.
        let size = env::var("OMPI_COMM_WORLD_SIZE").or_else(|_| env::var("PMI_SIZE")).ok();
        let started = size.is_some() || env::var_os("PMIX_RANK").is_some();
        let (mut team, mut job) = (Team::alone(), None);
        if started && size.as_deref() != Some("1") {
            let joined = Job::join(stop.clone(), grace()).map_err(|error| failure(error.into()))?;
            team = joined.team(1).map_err(|error| failure(error.into()))?;
            job = Some(joined);
        }
        Ok(Self { team, job, stop: stop.clone() })
    }

    /// Each `tensor_parallel` processes hold one model between them.
    pub fn divide(&mut self, tensor_parallel: usize) -> Result<(), Failure> {
        if let Some(job) = &self.job {
            self.team = job.team(tensor_parallel).map_err(|error| Failure::new(USAGE, error))?;
        } else if tensor_parallel > 1 {
            let problem = format!(
                "`train.tensor_parallel` is {tensor_parallel}, but this process is alone: \
                 start it as `mpirun -n {tensor_parallel} firebrick train ..`"
            );
            return Err(Failure::text(USAGE, problem));
        }
        Ok(())
    }

    /// All processes must train on the same rows by the same recipe.
    pub fn check(&self, info: &RunInfo) -> Result<(), Failure> {
        for (what, hash) in [("recipe", &info.recipe_sha256), ("training rows", &info.data_sha256)]
        {
            if !self.team.agrees(hash.as_bytes()).map_err(anyhow::Error::new)? {
                let problem =
                    format!("rank {} has other {what} than rank 0", self.team.world.rank());
                return Err(Failure::text(BAD_FILE, problem));
            }
        }
        Ok(())
    }

    /// Says farewell to the others, who do the same. A process that ends without it makes `mpirun` end them all.
    pub fn leave<T>(self, done: Result<T, Failure>) -> Result<T, Failure> {
        let failure = match done {
            Ok(done) => {
                self.job.into_iter().for_each(Job::leave);
                return Ok(done);
            }
            Err(failure) => failure,
        };
        let lost = |error: &anyhow::Error| error.chain().any(|cause| cause.is::<Lost>());
        if !self.team.is_first() && !failure.error.as_ref().is_some_and(lost) {
            // The first process has most likely found the same, and speaks for all; then mpirun ends this one.
            let told = Instant::now();
            while told.elapsed() < kill_timeout() + Duration::from_secs(4) {
                std::thread::sleep(Duration::from_millis(50));
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Failure::quiet(failure.code));
                }
            }
        }
        Err(failure)
    }
}

/// How long after its first signal a process may wait for others: the rest is for what it writes at its end.
fn grace() -> Duration {
    kill_timeout() / 2
}

/// What Open MPI waits before it tells processes to end, and then again before it kills them.
fn kill_timeout() -> Duration {
    let seconds = env::var("OMPI_MCA_odls_base_sigkill_timeout");
    let seconds = seconds.ok().and_then(|seconds| seconds.parse::<u32>().ok()).unwrap_or(1);
    Duration::from_secs(seconds.into())
}

#[cfg(feature = "mpi")]
fn failure(error: anyhow::Error) -> Failure {
    error.into()
}

#[cfg(not(feature = "mpi"))]
fn failure(error: anyhow::Error) -> Failure {
    Failure::new(crate::failure::MISSING, error)
}

/// What there is of a job in a build without MPI.
#[cfg(not(feature = "mpi"))]
enum Job {}

#[cfg(not(feature = "mpi"))]
#[derive(Debug, thiserror::Error)]
#[error(
    "several processes were started to train together, but this build has no MPI: \
     build with `cargo build --workspace --features firebrick/mpi`"
)]
struct NoMpi;

#[cfg(not(feature = "mpi"))]
impl Job {
    fn join(_: Arc<AtomicBool>, _: Duration) -> Result<Self, NoMpi> {
        Err(NoMpi)
    }

    fn team(&self, _: usize) -> Result<Team, NoMpi> {
        match *self {}
    }

    fn leave(self) {
        match self {}
    }
}
