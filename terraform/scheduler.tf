resource "google_cloud_scheduler_job" "tick" {
  name             = "tick"
  description      = "Wakes the sessions that are due"
  region           = var.region
  schedule         = "* * * * *"
  attempt_deadline = "180s"

  retry_config {
    retry_count = 0 # the next minute comes anyway
  }

  http_target {
    http_method = "POST"
    uri         = "${local.urls["callbacks"]}/tick"
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.audiences["callbacks"]
    }
  }

  depends_on = [google_project_service.api]
}
