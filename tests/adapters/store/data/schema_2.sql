PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES(2);
CREATE TABLE names (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  last_version INTEGER NOT NULL,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
INSERT INTO names VALUES('acme','de',1);
INSERT INTO names VALUES('acme','fr',3);
INSERT INTO names VALUES('other','fr',1);
CREATE TABLE versions (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  digest TEXT NOT NULL,
  method TEXT NOT NULL,
  num_parameters INTEGER NOT NULL,
  max_rank INTEGER NOT NULL,
  num_sites INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL,
  resident_bytes INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  warnings TEXT NOT NULL, report TEXT NOT NULL DEFAULT '{}',
  UNIQUE (tenant, name, version),
  FOREIGN KEY (tenant, name) REFERENCES names (tenant, name)
);
INSERT INTO versions VALUES(2,'acme','fr',2,'74bd937515544ac0ed84eb7e319631614e046ae1529eeb5f0b5118449a85f837','',0,0,0,24002,0,1795645574539444240,'[]','{"delta_norm_bound":0.0,"has_weight":true,"num_untouched_sites":0,"num_virtual_tokens":0}');
INSERT INTO versions VALUES(3,'acme','de',1,'c9188f54f1923d964d8fa22466fb034149c47e646e90af24d560251d0ad8ba04','',0,0,0,24002,0,1795645574627214619,'[]','{"delta_norm_bound":0.0,"has_weight":true,"num_untouched_sites":0,"num_virtual_tokens":0}');
INSERT INTO versions VALUES(4,'acme','fr',3,'020713c0b3e983eba541e1fd47e60141118dd55c9b6b229b59a769e4441ff909','',0,0,0,36002,0,1795645574723105649,'[]','{"delta_norm_bound":0.0,"has_weight":true,"num_untouched_sites":0,"num_virtual_tokens":0}');
INSERT INTO versions VALUES(5,'other','fr',1,'c9188f54f1923d964d8fa22466fb034149c47e646e90af24d560251d0ad8ba04','',0,0,0,24002,0,1795645574807116178,'[]','{"delta_norm_bound":0.0,"has_weight":true,"num_untouched_sites":0,"num_virtual_tokens":0}');
CREATE TABLE files (
  version_id INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  num_bytes INTEGER NOT NULL,
  PRIMARY KEY (version_id, name)
) WITHOUT ROWID;
INSERT INTO files VALUES(2,'adapter_config.json','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO files VALUES(2,'adapter_model.safetensors','d4f5e3284c7531535421f1d83aac26e9ed749631b2cbba29ea87cebf954b2499',24000);
INSERT INTO files VALUES(3,'adapter_config.json','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO files VALUES(3,'adapter_model.safetensors','44e371b430a599283c2fcd333ae25f087c7fd5332dce076b13c7d0b8a0e7339f',24000);
INSERT INTO files VALUES(4,'adapter_config.json','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO files VALUES(4,'adapter_model.safetensors','18b5dd626cbe7020eb17bbaf9e9a5ee5986731c21e58a88b67909f3ae8118c42',36000);
INSERT INTO files VALUES(5,'adapter_config.json','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',2);
INSERT INTO files VALUES(5,'adapter_model.safetensors','44e371b430a599283c2fcd333ae25f087c7fd5332dce076b13c7d0b8a0e7339f',24000);
CREATE INDEX files_by_sha256 ON files (sha256);
COMMIT;
