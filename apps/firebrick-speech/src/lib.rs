//! Speech applications: recordings into training, models into answers about recordings.
