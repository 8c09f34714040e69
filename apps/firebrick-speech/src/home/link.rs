//! A connection to an MQTT broker that mends itself: what is lost is subscribed to and published again, until a deadline.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rumqttc::{
    Client, Connection, ConnectionError, Event, LastWill, MqttOptions, MqttState, NetworkOptions,
    Outgoing, Packet, QoS, RecvTimeoutError, Transport,
};

use super::{HomeError, file::Broker};

/// Longest packet, either way; a message on a home's topics is far shorter.
const PACKET: usize = 64 << 10;
/// Messages that may be on their way to the broker; one is, but [`MqttOptions`] wants room.
const IN_FLIGHT: u16 = 100;
/// Requests that wait to be sent: a home's subscriptions.
const REQUESTS: usize = 1 << 16;
/// Messages that wait to be taken; the oldest go first.
const MOST: usize = 1000;
/// Waits between attempts to connect: doubled from the first to the second.
const WAITS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(400)];
/// Of the keep-alive packets: a peer that is silent for longer is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// Each publish and subscription is of QoS 1: at least once.
pub struct Link {
    client: Client,
    connection: Connection,
    address: String,
    subscriptions: Vec<String>,
    received: VecDeque<Message>,
    connected: bool,
    /// How often it was connected.
    connections: u64,
    /// Next wait before another attempt.
    wait: Duration,
    /// Why the last attempt failed.
    problem: String,
}

/// What a step of the connection was.
enum Step {
    Connected,
    Lost,
    Sent(u16),
    Acknowledged(u16),
    /// A message, which is among the received now, or nothing of note.
    Other,
}

impl Link {
    /// `id` names the client at the broker. With a `will` (a topic and what the broker shall say there, retained, when the
    /// connection is lost) the broker also keeps what comes while the client is away.
    pub fn new(broker: &Broker, id: &str, will: Option<(String, &str)>) -> Self {
        let mut options = MqttOptions::new(id, &broker.host, broker.port);
        options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(PACKET, PACKET);
        options.set_inflight(IN_FLIGHT);
        if let Some((topic, payload)) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true));
            options.set_clean_session(false);
        }
        if let Some(user) = &broker.user {
            options.set_credentials(user, broker.password.as_deref().unwrap_or_default());
        }
        if broker.ca.is_some() {
            options.set_transport(Transport::tls(broker.certificates.clone(), None, None));
        }
        let (client, mut connection) = Client::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        connection.eventloop.set_network_options(network);
        Self {
            client,
            connection,
            address: format!("{}:{}", broker.host, broker.port),
            subscriptions: vec![],
            received: VecDeque::new(),
            connected: false,
            connections: 0,
            wait: WAITS[0],
            problem: "it was not reached in time".into(),
        }
    }

    /// Listens to a topic from now on, also after a loss. What the broker keeps there comes, each time that this is called.
    pub fn subscribe(&mut self, topic: String) {
        if self.connected {
            self.ask_for(&topic);
        }
        if !self.subscriptions.contains(&topic) {
            self.subscriptions.push(topic);
        }
    }

    /// Drops what came in and was not taken.
    pub fn forget(&mut self) {
        self.received.clear();
    }

    fn ask_for(&self, topic: &str) {
        // A request that finds the channel full comes with the next connection.
        let _ = self.client.try_subscribe(topic, QoS::AtLeastOnce);
    }

    /// Grows with each connection: whoever announces itself does so again.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// One event, or none by `until`.
    fn step(&mut self, until: Instant) -> Result<Step, HomeError> {
        let left = until.saturating_duration_since(Instant::now());
        match self.connection.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => Ok(Step::Other),
            Err(RecvTimeoutError::Disconnected) => unreachable!("this holds a client"),
            Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                (self.connected, self.wait) = (true, WAITS[0]);
                self.connections += 1;
                self.subscriptions.iter().for_each(|topic| self.ask_for(topic));
                Ok(Step::Connected)
            }
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                if self.received.len() == MOST {
                    self.received.pop_front();
                }
                let (topic, payload) = (publish.topic, publish.payload.to_vec());
                self.received.push_back(Message { topic, payload });
                Ok(Step::Other)
            }
            Ok(Ok(Event::Incoming(Packet::PubAck(ack)))) => Ok(Step::Acknowledged(ack.pkid)),
            Ok(Ok(Event::Outgoing(Outgoing::Publish(id)))) => Ok(Step::Sent(id)),
            Ok(Ok(_)) => Ok(Step::Other),
            Ok(Err(ConnectionError::ConnectionRefused(code))) => {
                Err(self.broken(format!("it refused the connection: {code:?}")))
            }
            Ok(Err(error)) => {
                self.connected = false;
                self.problem = error.to_string();
                // Whoever was waiting publishes again. What the state keeps beyond a loss (events that were not taken, a
                // collision) would be mistaken for the next connection's.
                self.connection.eventloop.pending.clear();
                self.connection.eventloop.state = MqttState::new(IN_FLIGHT, false);
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(self.wait.min(left));
                self.wait = (2 * self.wait).min(WAITS[1]);
                Ok(Step::Lost)
            }
        }
    }

    fn broken(&self, problem: String) -> HomeError {
        HomeError::Broker { address: self.address.clone(), problem }
    }

    /// Waits for the connection.
    pub fn connect(&mut self, until: Instant) -> Result<(), HomeError> {
        while !self.connected {
            self.step(until)?;
            if !self.connected && Instant::now() >= until {
                return Err(self.broken(self.problem.clone()));
            }
        }
        Ok(())
    }

    /// Waits until the broker has it; a connection that is lost on the way is mended, and it is sent again.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        retain: bool,
        until: Instant,
    ) -> Result<(), HomeError> {
        loop {
            self.connect(until)?;
            let sent = self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload);
            sent.map_err(|error| self.broken(error.to_string()))?;
            let mut id = None;
            loop {
                match self.step(until)? {
                    Step::Sent(sent) => id = Some(sent),
                    Step::Acknowledged(ack) if id == Some(ack) => return Ok(()),
                    Step::Lost | Step::Connected => break,
                    _ if Instant::now() >= until => {
                        return Err(self.broken("it did not acknowledge a message".into()));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The first message that `wanted` makes something of; others are dropped. `None` when none came by `until`, or when
    /// the connection is a new one: what was to be answered may be lost.
    pub fn wait_for<T>(
        &mut self,
        until: Instant,
        mut wanted: impl FnMut(Message) -> Option<T>,
    ) -> Result<Option<T>, HomeError> {
        let connections = self.connections;
        loop {
            let Some(message) = self.next(until)? else { return Ok(None) };
            if let Some(found) = wanted(message) {
                return Ok(Some(found));
            }
            if self.connections != connections {
                return Ok(None);
            }
        }
    }

    /// The next message; `None` when none came by `until`, or when the connection is a new one.
    pub fn next(&mut self, until: Instant) -> Result<Option<Message>, HomeError> {
        let connections = self.connections;
        while self.received.is_empty() && self.connections == connections {
            if Instant::now() >= until {
                return Ok(None);
            }
            self.step(until)?;
        }
        Ok(self.received.pop_front())
    }

    /// Says farewell, so that the broker does not speak the will.
    pub fn leave(mut self) {
        if self.connected && self.client.try_disconnect().is_ok() {
            let until = Instant::now() + Duration::from_millis(200);
            while Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                match self.connection.recv_timeout(left) {
                    Ok(Ok(Event::Outgoing(Outgoing::Disconnect))) => break,
                    Ok(Ok(_)) => {}
                    _ => break,
                }
            }
        }
    }
}
