//! Topics, and the announcements by which Home Assistant finds devices by itself:
//! <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>.
//!
//! An announcement lies, retained, at `homeassistant/COMPONENT/NODE/OBJECT/config`. Its keys are those of
//! <https://www.home-assistant.io/integrations/light.mqtt/#json-schema>, [switch](https://www.home-assistant.io/integrations/switch.mqtt/),
//! [climate](https://www.home-assistant.io/integrations/climate.mqtt/) and
//! [scene](https://www.home-assistant.io/integrations/scene.mqtt/).

use serde_json::{Value, json};

use super::file::{Device, Home, Kind, Scene};

/// Home Assistant says `online` there when it starts; devices announce themselves again.
pub const BIRTH: &str = "homeassistant/status";
/// Payloads of an availability topic.
pub const ONLINE: &str = "online";
pub const OFFLINE: &str = "offline";

impl Home {
    /// Where a device's state is; commands go to `/set` below.
    pub fn topic(&self, device: &Device) -> String {
        let own = || format!("firebrick/{}/{}", self.name, device.id);
        device.topic.clone().unwrap_or_else(own)
    }

    /// Where our devices say that they are there, and the broker that they are gone.
    pub fn availability(&self) -> String {
        format!("firebrick/{}/availability", self.name)
    }

    /// Where a scene is called.
    pub fn scene_topic(&self, scene: &Scene) -> String {
        format!("firebrick/{}/{}/set", self.name, scene.id)
    }
}

/// Topic and announcement of each device that is ours, and of each scene.
pub fn announcements(home: &Home) -> Vec<(String, String)> {
    let ours = home.devices.iter().filter(|device| device.topic.is_none());
    let devices = ours.map(|device| {
        let (component, mut config) = of_device(home, device);
        config["device"] = json!({
            "identifiers": [format!("firebrick-{}-{}", home.name, device.id)],
            "name": device.title(), "manufacturer": "Firebrick", "model": "simulated device",
            "suggested_area": device.room,
        });
        (component, &device.id, config)
    });
    let scenes = home.scenes.iter().map(|scene| {
        let name = scene.names.first().unwrap_or(&scene.id);
        let config = json!({
            "name": name, "command_topic": home.scene_topic(scene), "payload_on": "ON", "qos": 1,
        });
        ("scene", &scene.id, config)
    });
    let whole = |(component, id, mut config): (&str, &String, Value)| {
        config["unique_id"] = format!("firebrick-{}-{id}", home.name).into();
        config["availability_topic"] = home.availability().into();
        config["origin"] = json!({"name": "firebrick", "sw_version": env!("CARGO_PKG_VERSION")});
        let topic = format!("homeassistant/{component}/{}/{id}/config", home.name);
        (topic, config.to_string())
    };
    devices.chain(scenes).map(whole).collect()
}

fn of_device(home: &Home, device: &Device) -> (&'static str, Value) {
    let state = home.topic(device);
    let set = format!("{state}/set");
    match device.kind {
        Kind::Light => (
            "light",
            json!({
                "name": null, "schema": "json", "brightness": true,
                "supported_color_modes": ["brightness"],
                "command_topic": set, "state_topic": state, "qos": 1,
            }),
        ),
        Kind::Socket => (
            "switch",
            json!({
                "name": null, "device_class": "outlet",
                "command_topic": set, "state_topic": state, "qos": 1,
                "payload_on": json!({"state": "ON"}).to_string(),
                "payload_off": json!({"state": "OFF"}).to_string(),
                "state_on": "ON", "state_off": "OFF", "value_template": "{{ value_json.state }}",
            }),
        ),
        Kind::Thermostat => {
            let [low, high] = device.range();
            (
                "climate",
                json!({
                    "name": null, "modes": ["heat"], "temperature_unit": "C", "temp_step": 0.5,
                    "min_temp": low, "max_temp": high, "qos": 1,
                    "temperature_command_topic": set,
                    "temperature_command_template": "{\"temperature\": {{ value }}}",
                    "temperature_state_topic": state,
                    "temperature_state_template": "{{ value_json.temperature }}",
                }),
            )
        }
    }
}
