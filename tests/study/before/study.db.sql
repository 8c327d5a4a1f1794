BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'wnexplore');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MAXIMIZE',1,1);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["params", "top1"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'search','"[\"backbones: [''own.py:tiny'']\\nmethods: [weightnet]\\nM: [1, 2]\\nG: [1, 2]\\nper_stage: false\\nstages: [null, 3+4]\\nexperts: [4]\\ntemperature: [30]\\nstem: [imagenet]\\nresolution: [8]\\nnum_classes: [10]\\nreduction: [16]\\nactivation: [sigmoid]\\ndepthwise: [published]\\nlatency: false\\ntrain: {epochs: null, steps: 2, batch_size: 32, optimizer: sgd, lr: 0.05, kernel_lr: 12.0,\\n  lr_schedule: cosine, warmup_epochs: 0.5, momentum: 0.9, nesterov: true, weight_decay: 0.0001,\\n  label_smoothing: 0.1, clip_grad_norm: null, ema: null, amp: ''off'', batch_norm: refreshed,\\n  colour_jitter: 0.0, min_crop: 0.08, data: digits, path: null, download: false, device: cpu,\\n  seeds: 1, jobs: 1, schedule: full, min_epochs: null, max_epochs: null, eta: null}\\n\", [\"params\", \"top1\"], null, \"nsga2\", 0]"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'backbone',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["own.py:tiny"]}}');
INSERT INTO "trial_params" VALUES(2,1,'stem',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["imagenet"]}}');
INSERT INTO "trial_params" VALUES(3,1,'resolution',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [8]}}');
INSERT INTO "trial_params" VALUES(4,1,'num_classes',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [10]}}');
INSERT INTO "trial_params" VALUES(5,1,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["weightnet"]}}');
INSERT INTO "trial_params" VALUES(6,1,'weightnet.stages',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [null, "3+4"]}}');
INSERT INTO "trial_params" VALUES(7,1,'weightnet.reduction',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16]}}');
INSERT INTO "trial_params" VALUES(8,1,'weightnet.activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["sigmoid"]}}');
INSERT INTO "trial_params" VALUES(9,1,'weightnet.depthwise',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["published"]}}');
INSERT INTO "trial_params" VALUES(10,1,'weightnet.M',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(11,1,'weightnet.G',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(12,2,'backbone',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["own.py:tiny"]}}');
INSERT INTO "trial_params" VALUES(13,2,'stem',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["imagenet"]}}');
INSERT INTO "trial_params" VALUES(14,2,'resolution',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [8]}}');
INSERT INTO "trial_params" VALUES(15,2,'num_classes',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [10]}}');
INSERT INTO "trial_params" VALUES(16,2,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["weightnet"]}}');
INSERT INTO "trial_params" VALUES(17,2,'weightnet.stages',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [null, "3+4"]}}');
INSERT INTO "trial_params" VALUES(18,2,'weightnet.reduction',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16]}}');
INSERT INTO "trial_params" VALUES(19,2,'weightnet.activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["sigmoid"]}}');
INSERT INTO "trial_params" VALUES(20,2,'weightnet.depthwise',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["published"]}}');
INSERT INTO "trial_params" VALUES(21,2,'weightnet.M',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(22,2,'weightnet.G',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(23,3,'backbone',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["own.py:tiny"]}}');
INSERT INTO "trial_params" VALUES(24,3,'stem',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["imagenet"]}}');
INSERT INTO "trial_params" VALUES(25,3,'resolution',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [8]}}');
INSERT INTO "trial_params" VALUES(26,3,'num_classes',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [10]}}');
INSERT INTO "trial_params" VALUES(27,3,'method',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["weightnet"]}}');
INSERT INTO "trial_params" VALUES(28,3,'weightnet.stages',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [null, "3+4"]}}');
INSERT INTO "trial_params" VALUES(29,3,'weightnet.reduction',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16]}}');
INSERT INTO "trial_params" VALUES(30,3,'weightnet.activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["sigmoid"]}}');
INSERT INTO "trial_params" VALUES(31,3,'weightnet.depthwise',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["published"]}}');
INSERT INTO "trial_params" VALUES(32,3,'weightnet.M',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(33,3,'weightnet.G',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"backbone": "own.py:tiny", "stem": "imagenet", "resolution": 8, "num_classes": 10, "method": "weightnet", "weightnet.M": 1, "weightnet.G": 1, "weightnet.stages": "3+4", "weightnet.reduction": 16, "weightnet.activation": "sigmoid", "weightnet.depthwise": "published"}');
INSERT INTO "trial_system_attributes" VALUES(2,2,'fixed_params','{"backbone": "own.py:tiny", "stem": "imagenet", "resolution": 8, "num_classes": 10, "method": "weightnet", "weightnet.M": 2, "weightnet.G": 1, "weightnet.stages": "3+4", "weightnet.reduction": 16, "weightnet.activation": "sigmoid", "weightnet.depthwise": "published"}');
INSERT INTO "trial_system_attributes" VALUES(3,3,'fixed_params','{"backbone": "own.py:tiny", "stem": "imagenet", "resolution": 8, "num_classes": 10, "method": "weightnet", "weightnet.M": 2, "weightnet.G": 2, "weightnet.stages": "3+4", "weightnet.reduction": 16, "weightnet.activation": "sigmoid", "weightnet.depthwise": "published"}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'first','0');
INSERT INTO "trial_user_attributes" VALUES(2,1,'point','"{\"backbone\": \"own.py:tiny\", \"method\": \"weightnet\", \"M\": 1, \"G\": 1, \"stages\": \"3+4\", \"experts\": null, \"temperature\": null, \"stem\": \"imagenet\", \"resolution\": 8, \"num_classes\": 10, \"reduction\": 16, \"activation\": \"sigmoid\", \"depthwise\": \"published\"}"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'outcome','"measured"');
INSERT INTO "trial_user_attributes" VALUES(4,2,'first','1');
INSERT INTO "trial_user_attributes" VALUES(5,2,'point','"{\"backbone\": \"own.py:tiny\", \"method\": \"weightnet\", \"M\": 2, \"G\": 1, \"stages\": \"3+4\", \"experts\": null, \"temperature\": null, \"stem\": \"imagenet\", \"resolution\": 8, \"num_classes\": 10, \"reduction\": 16, \"activation\": \"sigmoid\", \"depthwise\": \"published\"}"');
INSERT INTO "trial_user_attributes" VALUES(6,2,'outcome','"measured"');
INSERT INTO "trial_user_attributes" VALUES(7,3,'first','2');
INSERT INTO "trial_user_attributes" VALUES(8,3,'point','"{\"backbone\": \"own.py:tiny\", \"method\": \"weightnet\", \"M\": 2, \"G\": 2, \"stages\": \"3+4\", \"experts\": null, \"temperature\": null, \"stem\": \"imagenet\", \"resolution\": 8, \"num_classes\": 10, \"reduction\": 16, \"activation\": \"sigmoid\", \"depthwise\": \"published\"}"');
INSERT INTO "trial_user_attributes" VALUES(9,3,'outcome','"measured"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,10114.0,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,3.44444444444444428663e+01,'FINITE');
INSERT INTO "trial_values" VALUES(3,2,0,17842.0,'FINITE');
INSERT INTO "trial_values" VALUES(4,2,1,30.0,'FINITE');
INSERT INTO "trial_values" VALUES(5,3,0,10930.0,'FINITE');
INSERT INTO "trial_values" VALUES(6,3,1,3.44444444444444428663e+01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-29 04:28:13.667849','2026-11-29 04:28:15.130690');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-29 04:28:15.296297','2026-11-29 04:28:16.605321');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-29 04:28:16.770221','2026-11-29 04:28:18.250432');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
PRAGMA user_version = 0;
PRAGMA application_id = 0;
