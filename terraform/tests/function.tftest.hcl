# One function, alone.

mock_provider "google" {
  override_during = plan
}

variables {
  name          = "run_agent"
  project       = "shop"
  region        = "europe-west1"
  release       = "new"
  live          = "old"
  image         = "europe-west1-docker.pkg.dev/shop/recado/recado:new"
  archive       = "gs://shop-recado-source/new.zip"
  memory        = "1Gi"
  concurrency   = 20
  timeout       = "600s"
  max_instances = 50
  environment   = { LOG_LEVEL = "INFO", RECADO_PUSH_AUDIENCE = "" }
  secrets       = { RECADO_PLATFORM_KEY = "platform-key" }
}

run "it_starts_from_its_folder_under_its_own_account" {
  command = plan

  module {
    source = "./modules/function"
  }

  assert {
    condition     = google_service_account.function.account_id == "recado-run-agent"
    error_message = "Each function has an account named for it."
  }

  assert {
    condition = { for env in one(one(google_cloud_run_v2_service.function).template[0].containers).env : env.name => env.value if length(env.value_source) == 0 } == {
      FUNCTION_SOURCE   = "functions/run_agent/main.py"
      FUNCTION_TARGET   = "run_agent"
      FUNCTION_USE_ASGI = "1"
      LOG_LEVEL         = "INFO"
      PYTHONPATH        = "/workspace"
    }
    error_message = "The framework must find function and package; empty variables are left out."
  }

  assert {
    condition = (
      one(google_cloud_run_v2_service.function[0].build_config).function_target == "run_agent" &&
      one(google_cloud_run_v2_service.function[0].build_config).source_location == "gs://shop-recado-source/new.zip" &&
      !one(google_cloud_run_v2_service.function[0].build_config).enable_automatic_updates
    )
    error_message = "Cloud Run must know what the function was built from, and must not rebuild it."
  }

  assert {
    condition     = google_cloud_run_v2_service.function[0].template[0].scaling[0].min_instance_count == 0
    error_message = "While nobody writes, nothing runs."
  }

  assert {
    condition     = length(google_cloud_run_v2_service.function[0].template[0].volumes) == 0
    error_message = "Only who needs the database gets its socket."
  }
}

run "a_new_revision_gets_no_traffic_but_an_address" {
  command = plan

  module {
    source = "./modules/function"
  }

  assert {
    condition = jsonencode([for part in google_cloud_run_v2_service.function[0].traffic : [part.revision, part.percent]]) == jsonencode([
      ["run-agent-old", 100], ["run-agent-new", 0]
    ])
    error_message = "All traffic stays with the live revision."
  }

  assert {
    condition     = google_cloud_run_v2_service.function[0].traffic[1].tag == "next"
    error_message = "The new revision needs an address of its own."
  }
}

run "a_live_revision_gets_all_traffic" {
  command = plan

  module {
    source = "./modules/function"
  }

  variables {
    live = "new"
  }

  assert {
    condition     = jsonencode([for part in google_cloud_run_v2_service.function[0].traffic : [part.revision, part.percent]]) == jsonencode([["run-agent-new", 100]])
    error_message = "The release is live."
  }
}

run "the_database_comes_as_a_socket" {
  command = plan

  module {
    source = "./modules/function"
  }

  variables {
    name     = "api"
    database = "shop:europe-west1:recado"
  }

  assert {
    condition = (
      google_cloud_run_v2_service.function[0].template[0].volumes[0].cloud_sql_instance[0].instances == toset(["shop:europe-west1:recado"]) &&
      google_cloud_run_v2_service.function[0].template[0].containers[0].volume_mounts[0].mount_path == "/cloudsql"
    )
    error_message = "DATABASE_URL names a socket below /cloudsql."
  }
}

run "without_a_release_there_is_only_the_account" {
  command = plan

  module {
    source = "./modules/function"
  }

  variables {
    release = ""
    live    = ""
  }

  assert {
    condition     = length(google_cloud_run_v2_service.function) == 0
    error_message = "A service needs an image."
  }
}
