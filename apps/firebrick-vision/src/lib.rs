//! Vision applications: pictures into training, models into answers about pictures.
