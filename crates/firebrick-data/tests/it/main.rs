//! Files on disk: malformed tables, treebanks and archives, fetching, and the real data sets beside the repository.

#[cfg(test)]
mod archives;
#[cfg(test)]
mod audio;
#[cfg(test)]
mod conllu;
#[cfg(test)]
mod fetching;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod parquet;
#[cfg(test)]
mod real_sets;
#[cfg(test)]
mod tables;
